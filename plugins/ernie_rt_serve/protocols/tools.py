"""Tools as chat templates have them, and whether one must be called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from ernie_rt_serve.faults import Fault

MAX_TOOLS: Final = 128
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,128}$")]
Choice = Literal["auto", "none", "required"] | tuple[str]


def function(name: str, description: str | None, parameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
    given = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}


def chosen(choice: Choice, tools: Collection[str]) -> Choice:
    """The choice, if there is a tool for it among those of these names; else a Fault."""
    if choice == "required" and not tools:
        raise Fault(400, "tool_choice wants a call, and there are no tools", "tool_choice")
    if isinstance(choice, tuple) and choice[0] not in tools:
        raise Fault(400, "tool_choice names a tool that is not among tools", "tool_choice")
    return choice
