"""An answer in blocks: its reasoning, texts and tool calls, in the order in which they come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ernie_rt import Piece, ToolCall

Kind = Literal["reasoning", "text", "tool_call"]


@dataclass(slots=True, eq=False)
class Block:
    """A part of an answer. What a tool call consists of, beside its name, is the JSON of its arguments."""

    kind: Kind
    index: int
    call: ToolCall | None = None
    parts: list[str] = field(default_factory=list)
    tokens: list[Piece] = field(default_factory=list)
    """The pieces whose tokens made it. What shows nothing belongs to what shows next: half a character, a tag."""
    cut: bool = False
    """Whether it was cut off by the end of the answer."""

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass(frozen=True, slots=True)
class Change:
    """A block that has begun, that has grown by `text`, which `tokens` made, or that has ended."""

    what: Literal["begun", "grown", "ended"]
    block: Block
    text: str = ""
    tokens: tuple[Piece, ...] = ()


class Blocks:
    """The blocks of an answer that is given in pieces. A block ends where another kind begins, and with the answer."""

    def __init__(self, parallel_tool_calls: bool) -> None:
        """Without `parallel_tool_calls` only the first of several is passed on."""
        self.all: list[Block] = []
        self.calls = 0
        self._most_calls = math.inf if parallel_tool_calls else 1
        self._held: list[Piece] = []
        self._open = False

    def push(self, piece: Piece) -> Iterator[Change]:
        """What a piece changes."""
        if piece.id is not None:
            self._held.append(piece)
        if piece.reasoning:
            yield from self._grow("reasoning", piece.reasoning)
        if piece.text:
            yield from self._grow("text", piece.text)
        for call in piece.tool_calls:
            if self.calls == self._most_calls:
                break
            self.calls += 1
            yield from self._grow("tool_call", json.dumps(dict(call.arguments), ensure_ascii=False), call)
            yield from self.end()
        if piece.finish:
            yield from self.end(cut=piece.finish != "stop")

    def end(self, *, cut: bool = False) -> Iterator[Change]:
        """The end of the block that is open, if one is."""
        if self._open:
            self._open = False
            self.all[-1].cut = cut
            yield Change("ended", self.all[-1])

    def _grow(self, kind: Kind, text: str, call: ToolCall | None = None) -> Iterator[Change]:
        if not self._open or self.all[-1].kind != kind:
            yield from self.end()
            self.all.append(Block(kind, len(self.all), call))
            self._open = True
            yield Change("begun", self.all[-1])
        block, tokens = self.all[-1], tuple(self._held)
        self._held.clear()
        block.parts.append(text)
        block.tokens += tokens
        yield Change("grown", block, text, tokens)
