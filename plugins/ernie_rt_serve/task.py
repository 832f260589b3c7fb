"""What a request asks for, whatever protocol says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ernie_rt.generation.options import GenerateOptions
from ernie_rt_serve.attachments import Attachment


@dataclass(frozen=True, slots=True)
class Format:
    """What the text of an answer must be: JSON, JSON of a `schema`, or what a regex or a Lark grammar describes."""

    kind: Literal["json", "json_schema", "regex", "grammar"]
    source: str | Mapping[str, Any] = ""
    """The schema as an object; the regex or grammar as text; nothing for JSON."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, and how it is to be answered.

    `prompt` is a conversation (messages as `Model.chat` has them, in which Attachments stand for pictures and videos),
    or a text or token ids to be continued. `tool_choice` is "auto", "none", "required", or the name of the one tool
    that must be called. `n` answers are wanted. `up_to` is in place of the option `max_new_tokens` where an answer may
    be shorter for want of room in the context, `effort` in place of `thinking_budget` where a model may as well be one
    that does not think. `thinking` says whether an answer is to begin with reasoning, for models that can do both.
    """

    prompt: tuple[Mapping[str, Any], ...] | str | tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: Literal["auto", "none", "required"] | tuple[str] = "auto"
    parallel_tool_calls: bool = True
    format: Format | None = None
    options: GenerateOptions = field(default_factory=GenerateOptions)
    up_to: int | None = None
    effort: int | None = None
    thinking: bool | None = None
    n: int = 1
    priority: int = 0

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The conversation, if it is one."""
        return [] if isinstance(self.prompt, str) else [each for each in self.prompt if isinstance(each, Mapping)]

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The pictures and videos of a conversation that nobody has decoded yet, in their order."""
        contents = [message.get("content") for message in self.messages]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return tuple(part for part in parts if isinstance(part, Attachment))

    @property
    def characters(self) -> int:
        """Of all texts that a prompt may be made of; token ids are none."""
        return len(self.prompt) if isinstance(self.prompt, str) else _characters([*self.messages, *self.tools])

    def with_media(self, media: Iterable[object]) -> Task:
        """The task with these parts in the places of its `attachments`."""
        coming = iter(media)

        def filled(message: Mapping[str, Any]) -> Mapping[str, Any]:
            content = message.get("content")
            if not isinstance(content, list):
                return message
            parts = [next(coming) if isinstance(part, Attachment) else part for part in content]
            return {**message, "content": parts}

        return replace(self, prompt=tuple(map(filled, self.messages)))


def _characters(value: object) -> int:
    match value:
        case str():
            return len(value)
        case Mapping():
            return sum(map(_characters, value.values()))
        case list() | tuple():
            return sum(map(_characters, value))
    return 0
