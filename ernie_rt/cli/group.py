"""The commands as a group: what is typed in place of a command gets an answer."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup

from ernie_rt.cli.output import say

LISTS: Final = "`ernie-rt models` lists the known models, `ernie-rt cache` the quantised ones that are kept"
FETCHES: Final = "A model is downloaded when it is first used: ernie-rt run MODEL"
ELSEWHERE: Final = {
    "list": LISTS,
    "ls": LISTS,
    "pull": FETCHES,
    "download": FETCHES,
    "rm": "`ernie-rt cache remove` removes quantised models; `hf cache rm` those of the Hugging Face hub",
    "show": "`ernie-rt graph MODEL` prints a model, `ernie-rt models` the figures of all",
    "serve": "There is no server yet. `ernie-rt chat` talks in the terminal",
}
"""Commands of other programs, and where to go with what they do."""


class Commands(TyperGroup):
    """`help` and `version` work as the options do; commands of other programs lead to those of this one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        match args:
            case ["help", *rest]:
                args = [*rest, "--help"]
            case ["version"]:
                args = ["--version"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in ELSEWHERE:
            ctx.fail(f"No such command {args[0]!r}. {ELSEWHERE[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # as pydantic begins them
            raise
        except KeyboardInterrupt:
            say("ernie-rt: interrupted")
            raise typer.Exit(130) from None
