"""What a model wrote, as it arrives: its reasoning, its text and its tool calls told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from ernie_rt.errors import JsonError
from ernie_rt.text.messages import ToolCall
from ernie_rt.text.tool_calls import read_calls

Kind = Literal["reasoning", "text", "tool_call"]
Section = Literal["", "think", "response", "tool_call"]

KINDS: Final[Mapping[Section, Kind]] = {"": "text", "response": "text", "think": "reasoning", "tool_call": "tool_call"}
TAGS: Final[Mapping[Section, Mapping[str, Section]]] = {
    "": {"<think>": "think", "<response>": "response", "<tool_call>": "tool_call"},
    "think": {"</think>": ""},
    "response": {"</response>": ""},
    "tool_call": {"</tool_call>": "", "<tool_call>": "tool_call"},
}
"""The tags that mean something in each section, and the section that they lead to; others are text."""
ANSWER_TAGS: Final = frozenset(tag for tags in TAGS.values() for tag in tags)
PATTERNS: Final = {section: re.compile("|".join(tags)) for section, tags in TAGS.items()}
OPEN, CLOSE = "<tool_call>", "</tool_call>"
WITHIN: Final = re.compile(r'\\.|"', re.DOTALL)
OUTSIDE: Final = re.compile(rf'"|{OPEN}|{CLOSE}|[^\w\s{{}}\[\]:,.+-]')
"""What to look for within a string of JSON: its end; and outside: the next, a tag, and what can stand in no JSON."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer: some more `text` of a kind, or a whole `call`, whose text is the JSON between its tags.

    What was meant as a tool call and is none is text: the tags and what was between them, as it was written. `fault`
    says why.
    """

    kind: Kind
    text: str
    call: ToolCall | None = None
    fault: str = ""


class OutputParser:
    """Parses one answer, given in any pieces; the parts do not depend on the split, save where one text ends.

    Newlines next to a tag belong to it and are left out, with the space that the Thinking model's tokenizer has between
    a tag and a newline; other text comes as soon as it cannot be the beginning of a tag. An answer without tags comes
    as it is. A tag within a string of a call's JSON is a part of that string, provided that all of it makes a call.
    Calls within the reasoning are a part of it where text or calls follow. Where nothing does, they were meant, and
    come at the end. Takes time linear in the text.
    """

    def __init__(self, thinking: bool = False) -> None:
        """`thinking`: the prompt ended inside `<think>`, as that of the Thinking model does."""
        self._section: Section = "think" if thinking else ""
        self._pending = ""
        """What may be the beginning of a tag, or of an escape."""
        self._newlines = 0
        """How many newlines wait for the text after them; a tag swallows them."""
        self._after_tag = thinking
        self._tagged = thinking
        self._behind: str | None = None
        """Right behind a tag: nothing yet, or one space that a newline may follow."""
        self._body: list[str] = []
        """What came after `<tool_call>`."""
        self._seek = OUTSIDE
        """What decides how the body goes on; once it can be no JSON, any tag."""
        self._reasoned: list[str] | None = []
        """The reasoning; None once there was anything else."""

    def push(self, text: str) -> list[Part]:
        """Take more of the answer, and return what is certain now."""
        return self._noted(self._push(text))

    def flush(self) -> list[Part]:
        """End the answer: what was held back, half a tag included, is text; a call without its end counts if whole."""
        parts: list[Part] = []
        while self._section == "tool_call":
            self._body.append(self._pending)
            self._pending = ""
            ended, rest = self._end_call("")
            parts += [*ended, *self._push(rest)]
        rest, self._pending = self._pending, ""
        parts += self._write(rest)
        if not self._tagged:
            parts.append(Part("text", "\n" * self._newlines))
        noted = self._noted(parts)
        return noted if self._reasoned is None else [*noted, *_calls_within("".join(self._reasoned))]

    def _noted(self, parts: Iterable[Part]) -> list[Part]:
        """Those of the parts that say something."""
        said = [part for part in parts if part.text or part.call]
        if any(part.kind != "reasoning" for part in said):
            self._reasoned = None
        if self._reasoned is not None:
            self._reasoned += [part.text for part in said]
        return said

    def _push(self, text: str) -> Iterator[Part]:
        text = self._pending + text
        position = 0
        while True:
            tag, end = self._next_tag(text, position)
            yield from self._write(text[position:end])
            if tag is None:
                break
            position = end + len(tag)
            if self._section == "tool_call":
                parts, rest = self._end_call(tag)
                yield from parts
                position -= len(rest)
                if position < 0:  # it began in an earlier piece
                    text, position = rest + text[position + len(rest) :], 0
            else:
                self._section = TAGS[self._section][tag]
            self._after_tag = self._tagged = True
            self._behind = ""
        self._pending = text[end:]

    def _next_tag(self, text: str, position: int) -> tuple[str | None, int]:
        """The next tag that means something, and where it begins; else None, and where half of one may begin."""
        tags = TAGS[self._section]
        seek = self._seek if self._section == "tool_call" else PATTERNS[self._section]
        while (found := seek.search(text, position)) is not None:
            if found[0] in tags:
                return found[0], found.start()
            if seek is OUTSIDE and found[0] != '"':
                if any(tag.startswith(text[found.start() : found.start() + len(tag)]) for tag in tags):
                    return None, found.start()
                seek = PATTERNS["tool_call"]
            elif found[0] == '"':
                seek = OUTSIDE if seek is WITHIN else WITHIN
            position = found.end()
            self._seek = seek
        if seek is WITHIN:
            return None, len(text) - text.endswith("\\", position)
        return None, len(text) - _half_tag(text[position:], tags)

    def _end_call(self, tag: str) -> tuple[list[Part], str]:
        """What the body is, at a tag outside of its strings or at the end of the answer, and the text to go on with.

        That text is what followed the first closing tag, where this was no part of a call's string.
        """
        body = "".join(self._body)
        self._body, self._seek = [], OUTSIDE
        self._section = TAGS["tool_call"].get(tag, "")
        whole = body if tag else body[: len(body) - _half_tag(body, (CLOSE,))]
        try:
            return [Part("tool_call", whole.strip(), call) for call in read_calls(whole)], ""
        except JsonError as error:
            fault = str(error)
        said, early, rest = body.partition(CLOSE)
        if early:
            self._section, tag, rest = "", CLOSE, rest + tag
        return [Part("text", f"{OPEN}{said}{CLOSE if tag == CLOSE else ''}", fault=fault)], rest

    def _write(self, text: str) -> list[Part]:
        """Text without tags, in the present section."""
        if self._section == "tool_call":
            self._body.append(text)
            return []
        if self._behind is not None and text:
            text = self._behind + text
            self._behind = " " if text == " " else None
            text = text[1:] if text == " " or text.startswith(" \n") else text
        body = text.strip("\n") if text else ""
        if not body:
            self._newlines += 0 if self._after_tag else len(text)
            return []
        before = 0 if self._after_tag else self._newlines + text.index(body[0])
        self._newlines = len(text) - len(text.rstrip("\n"))
        self._after_tag = False
        return [Part(KINDS[self._section], "\n" * before + body)]


def _calls_within(reasoning: str) -> Iterator[Part]:
    for behind in reasoning.split(OPEN)[1:]:
        body = behind.partition(CLOSE)[0]
        with suppress(JsonError):
            yield from [Part("tool_call", body.strip(), call) for call in read_calls(body)]


def _half_tag(text: str, tags: Iterable[str]) -> int:
    """How much of the end of `text` is the beginning of a tag."""
    return max(
        (size for tag in tags for size in range(1, len(tag)) if text.endswith(tag[:size])),
        default=0,
    )
