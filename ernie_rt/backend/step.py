"""One step of an engine: which tokens are new, where their K and V go, what they may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Float = npt.NDArray[np.float32] | npt.NDArray[np.float64]

LAST_SAMPLED = -1
"""A token id in a step: what the last row of this seat gave, known to an executable that samples on its device."""


@dataclass(frozen=True, eq=False)
class Step:
    """The new tokens of B sequences, laid end to end, for one graph.

    Sequence b brings the tokens `ids[query_start[b]:query_start[b + 1]]`; `past[b]` of its tokens are in the cache
    already. Its K and V rows lie in pages of `page_size` rows: token i of the sequence in row
    `tables[b, i // page_size] * page_size + i % page_size` (unused table entries are -1). In an executable of slots a
    page is a slot. `seats[b]`, below `max_sequences`, is a sequence's own for as long as it has rows in the cache, free
    for per-sequence state on a device. `rows`, ascending and perhaps empty, are the places in `ids` whose logits are
    wanted; an executable that samples gives a token for each, and with `want_logits` the logits too. `extra` are the
    graph's other inputs by name: float32 arrays (float64 in a float64 graph) of numbers that the input's dtype holds,
    int32 or bool.
    """

    ids: Int32  # [N]
    query_start: Int32  # [B + 1]
    past: Int32  # [B]
    tables: Int32  # [B, pages]
    page_size: int
    seats: Int32  # [B]
    rows: Int32  # [L]
    graph: str = "main"
    want_logits: bool = False
    extra: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def new(self) -> Int32:
        """New tokens per sequence `[B]`."""
        return np.diff(self.query_start)

    @property
    def lengths(self) -> Int32:
        """Context length per sequence once the step is done `[B]`."""
        return self.past + self.new

    @property
    def bindings(self) -> dict[str, int]:
        """The sizes of the graph's symbolic axes N, C and L."""
        return {"N": len(self.ids), "C": int(self.lengths.sum()), "L": len(self.rows)}

    @cached_property
    def sequence(self) -> Int32:
        """Which sequence each new token belongs to `[N]`."""
        return np.repeat(np.arange(len(self.past), dtype=np.int32), self.new)

    @cached_property
    def index(self) -> Int32:
        """The causal place of each new token in its sequence `[N]`."""
        start = np.repeat(self.query_start[:-1] - self.past, self.new)
        return np.arange(len(self.ids), dtype=np.int32) - start

    @property
    def positions(self) -> Int32:
        """The RoPE position of each new token `[N, 1]`."""
        return self.index[:, None]

    @cached_property
    def write(self) -> Int32:
        """The cache row of each new token `[N]`."""
        return self._rows(self.sequence, self.index)

    @cached_property
    def context_sequence(self) -> Int32:
        """Which sequence each context row belongs to `[C]`."""
        return np.repeat(np.arange(len(self.past), dtype=np.int32), self.lengths)

    @cached_property
    def context_index(self) -> Int32:
        """The causal place of each context row in its sequence `[C]`."""
        ends = np.cumsum(self.lengths, dtype=np.int32)
        return np.arange(int(ends[-1]), dtype=np.int32) - np.repeat(ends - self.lengths, self.lengths)

    @cached_property
    def context(self) -> Int32:
        """The cache rows that the step may read, sequence after sequence `[C]`."""
        return self._rows(self.context_sequence, self.context_index)

    def _rows(self, sequence: Int32, index: Int32) -> Int32:
        return self.tables[sequence, index // self.page_size] * self.page_size + index % self.page_size

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """Every input of the graph by name, those of `main` computed from the compact form above."""
        return {
            "ids": self.ids,
            "positions": self.positions,
            "sequence": self.sequence,
            "index": self.index,
            "write": self.write,
            "context": self.context,
            "context_sequence": self.context_sequence,
            "context_index": self.context_index,
            "rows": self.rows,
            **self.extra,
        }


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step gave: logits `[L, V]` for the core to sample from, or tokens `[L]` that the executable sampled.

    A graph without the output `logits` gives neither.

    `taps` are the values asked for, in any float dtype that holds them exactly, integers as int32. The arrays are the
    caller's: later steps leave them as they are.
    """

    logits: Float | None = None
    tokens: Int32 | None = None
    taps: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)


class Pending(Protocol):
    """A submitted step."""

    def result(self) -> StepResult:
        """Block until the step is done."""
        ...


@dataclass(frozen=True, eq=False)
class Done:
    """The Pending of an executable that works while `submit` is called."""

    value: StepResult

    def result(self) -> StepResult:
        return self.value
