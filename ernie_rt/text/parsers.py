"""What a model wrote, as it arrives: its reasoning, its text and its tool calls told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ernie_rt.errors import JsonError
from ernie_rt.files import parse_json
from ernie_rt.text.messages import ToolCall

Kind = Literal["reasoning", "text", "tool_call"]
Section = Literal["", "think", "response", "tool_call"]

KINDS: Final[Mapping[Section, Kind]] = {"": "text", "response": "text", "think": "reasoning", "tool_call": "tool_call"}
TAGS: Final[Mapping[Section, Mapping[str, Section]]] = {
    "": {"<think>": "think", "<response>": "response", "<tool_call>": "tool_call"},
    "think": {"</think>": ""},
    "response": {"</response>": ""},
    "tool_call": {"</tool_call>": ""},
}
"""The tags that mean something in each section, and the section that they lead to; others are text."""
ANSWER_TAGS: Final = frozenset(tag for tags in TAGS.values() for tag in tags)
PATTERNS: Final = {section: re.compile("|".join(tags)) for section, tags in TAGS.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer: some more `text` of a kind, or a whole `call`, whose text is its JSON.

    What was meant as a tool call and is none is text: the tags and what was between them, as it was written.
    """

    kind: Kind
    text: str
    call: ToolCall | None = None


class OutputParser:
    """Parses one answer, given in any pieces; the parts do not depend on the split, save where one text ends.

    Newlines next to a tag belong to it and are left out; other text comes as soon as it cannot be the beginning of a
    tag. An answer without tags comes as it is.
    """

    def __init__(self, thinking: bool = False) -> None:
        """`thinking`: the prompt ended inside `<think>`, as that of the Thinking model does."""
        self._section: Section = "think" if thinking else ""
        self._pending = ""
        """What may be the beginning of a tag."""
        self._newlines = 0
        """How many newlines wait for the text after them; a tag swallows them."""
        self._after_tag = thinking
        self._tagged = thinking
        self._call: list[str] = []

    def push(self, text: str) -> list[Part]:
        """Take more of the answer, and return what is certain now."""
        return [part for part in self._push(text) if part.text or part.call]

    def flush(self) -> list[Part]:
        """End the answer: what was held back, half a tag included, is text; a call without its end counts if whole."""
        rest, self._pending = self._pending, ""
        parts = self._write(rest)
        if self._section == "tool_call":
            parts = [_parse_call("".join(self._call), closed=False)]
        elif not self._tagged:
            parts.append(Part("text", "\n" * self._newlines))
        return [part for part in parts if part.text or part.call]

    def _push(self, text: str) -> Iterator[Part]:
        text = self._pending + text
        position = 0
        while True:
            tags = TAGS[self._section]
            found = PATTERNS[self._section].search(text, position)
            if found is None:
                break
            yield from self._write(text[position : found.start()])
            if self._section == "tool_call":
                yield _parse_call("".join(self._call), closed=True)
                self._call = []
            self._section = tags[found[0]]
            self._after_tag = self._tagged = True
            position = found.end()
        end = len(text) - _half_tag(text[position:], tags)
        yield from self._write(text[position:end])
        self._pending = text[end:]

    def _write(self, text: str) -> list[Part]:
        """Text without tags, in the present section."""
        if self._section == "tool_call":
            self._call.append(text)
            return []
        body = text.strip("\n") if text else ""
        if not body:
            self._newlines += 0 if self._after_tag else len(text)
            return []
        before = 0 if self._after_tag else self._newlines + text.index(body[0])
        self._newlines = len(text) - len(text.rstrip("\n"))
        self._after_tag = False
        return [Part(KINDS[self._section], "\n" * before + body)]


def _half_tag(text: str, tags: Mapping[str, Section]) -> int:
    """How much of the end of `text` is the beginning of a tag."""
    return max(
        (size for tag in tags for size in range(1, len(tag)) if text.endswith(tag[:size])),
        default=0,
    )


def _parse_call(body: str, *, closed: bool) -> Part:
    try:
        value = parse_json(body.strip().encode(), where="a tool call")
        arguments = value.get("arguments", {}) if isinstance(value, dict) else None
        if isinstance(arguments, str):
            arguments = parse_json(arguments.encode(), where="the arguments of a tool call")
    except JsonError:
        arguments = None
    if isinstance(arguments, dict) and isinstance(value.get("name"), str):
        return Part("tool_call", body.strip(), ToolCall(value["name"], arguments))
    return Part("text", f"<tool_call>{body}{'</tool_call>' if closed else ''}")
