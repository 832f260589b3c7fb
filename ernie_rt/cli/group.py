"""The commands as a group: what is typed in place of a command gets an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

from ernie_rt.cli.lazy import Lazy, failure
from ernie_rt.cli.output import say
from ernie_rt.display import did_you_mean
from ernie_rt.errors import PluginError

if TYPE_CHECKING:
    from ernie_rt.discovery.installed import Plugin

OURS: Final = {
    **{
        name: f"ernie_rt.cli.{name}:{name}"
        for name in (
            "run", "chat", "plan", "explain", "tokenize", "graph", "models", "routing", "plugins", "doctor", "replay",
            "diff", "conform", "quantize", "convert", "export", "verify",
        )
    },
    "eval": "ernie_rt.cli.evaluate:evaluate",
    "backends": "ernie_rt.cli.backends:app",
    "cache": "ernie_rt.cli.cache:app",
}  # fmt: skip
"""The core's commands, in the order of the help, and what each is, as entry points say it."""

LISTS: Final = "`ernie-rt models` lists the known models, `ernie-rt cache` the quantised ones that are kept"
FETCHES: Final = "A model is downloaded when it is first used: ernie-rt run MODEL"
ELSEWHERE: Final = {
    "list": LISTS,
    "ls": LISTS,
    "pull": FETCHES,
    "download": FETCHES,
    "rm": "`ernie-rt cache remove` removes quantised models; `hf cache rm` those of the Hugging Face hub",
    "show": "`ernie-rt graph MODEL` prints a model, `ernie-rt models` the figures of all",
}
"""Commands of other programs, and where to go with what they do."""


class Commands(TyperGroup):
    """The commands of ernie-rt, and those of plugins. None is made before it is run or its help is wanted.

    `help` and `version` work as the options do; commands of other programs lead to those of this one.
    """

    def plugins(self, ctx: Any) -> tuple[Plugin, ...]:
        """The commands of plugins, by metadata; none has the name of one that is built in."""
        from ernie_rt.discovery.installed import discover
        from ernie_rt.hooks import COMMANDS

        if COMMANDS not in ctx.meta:  # read once, for all who ask within one call
            ctx.meta[COMMANDS] = discover(COMMANDS, {*OURS, "help", "version"})
        found: tuple[Plugin, ...] = ctx.meta[COMMANDS]
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        return [*OURS, *(plugin.name for plugin in self.plugins(ctx) if plugin.status == "found")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in OURS:
            return Lazy.of_core(cmd_name, OURS[cmd_name])
        found = self._plugin(ctx, cmd_name)
        return Lazy(found) if found is not None and found.status == "found" else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        match args:
            case ["help", *rest]:
                args = [*rest, "--help"]
            case ["version"]:
                args = ["--version"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            unusable = self._plugin(ctx, name)
            if unusable is not None:
                cause = f"command {name!r} cannot be used: {unusable.cause}"
                raise PluginError(cause, where=unusable.distribution, hint="`ernie-rt plugins` says more")
            hint = ELSEWHERE.get(name) or did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}. {hint}".strip())
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # as pydantic begins them
            raise
        except ImportError as error:
            plugin = None if ctx.invoked_subcommand in OURS else self._plugin(ctx, ctx.invoked_subcommand)
            if plugin is None:
                raise
            raise failure(plugin, error) from error
        except KeyboardInterrupt:
            say("ernie-rt: interrupted")
            raise typer.Exit(130) from None

    def _plugin(self, ctx: Any, name: str) -> Plugin | None:
        return next((plugin for plugin in self.plugins(ctx) if plugin.name == name), None)
