"""What a request asks for, whatever protocol says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ernie_rt.generation.options import GenerateOptions


@dataclass(frozen=True, slots=True)
class Format:
    """What the text of an answer must be: JSON, JSON of a `schema`, or what a regex or a Lark grammar describes."""

    kind: Literal["json", "json_schema", "regex", "grammar"]
    source: str | Mapping[str, Any] = ""
    """The schema as an object; the regex or grammar as text; nothing for JSON."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, and how it is to be answered.

    `prompt` is a conversation (messages as OpenAI has them), or a text or token ids to be continued. `tool_choice` is
    "auto", "none", "required", or the name of the one tool that must be called. `n` answers are wanted. `up_to` is in
    place of the option `max_new_tokens` where an answer may be shorter for want of room in the context, `effort` in
    place of `thinking_budget` where a model may as well be one that does not think.
    """

    prompt: tuple[Mapping[str, Any], ...] | str | tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: Literal["auto", "none", "required"] | tuple[str] = "auto"
    parallel_tool_calls: bool = True
    format: Format | None = None
    options: GenerateOptions = field(default_factory=GenerateOptions)
    up_to: int | None = None
    effort: int | None = None
    n: int = 1
    priority: int = 0
