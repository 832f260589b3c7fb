"""One step of an engine: which tokens are new, where their K and V go, what they may see, how tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import BackendError
from ernie_rt.graph.graph import Graph
from ernie_rt.sampling.draws import Draws

Int32 = npt.NDArray[np.int32]
Float = npt.NDArray[np.float32] | npt.NDArray[np.float64]

LAST_DRAWN = -1
"""A token id in a step: what was last drawn for this seat, known to an executable that draws on its device."""

NO_NUMBER = -1
"""A token in a result: the logits held no number to choose."""


@dataclass(frozen=True, eq=False)
class Step:
    """The new tokens of B sequences, laid end to end, for one graph.

    Sequence b brings the tokens `ids[query_start[b]:query_start[b + 1]]`; `past[b]` of its tokens are in the cache
    already. Its K and V rows lie in pages of `page_size` rows: token i of the sequence in row
    `tables[b, i // page_size] * page_size + i % page_size` (unused table entries are -1). In an executable of slots a
    page is a slot. `seats[b]`, below `max_sequences`, is a sequence's own for as long as it has rows in the cache, free
    for per-sequence state on a device.

    `rows`, ascending and perhaps empty, are the places in `ids` whose logits are computed, and `fetch` those of them,
    as places in `rows`, whose logits are handed back (None: all). For an executable that draws, `draws` says how the
    tokens of each sequence are chosen; a sequence whose `known` is 0 draws none.

    The last `drafts[b]` new tokens of a sequence are guesses, each to be verified by the token that is drawn after the
    one before it: such a sequence has `drafts[b] + 1` rows, and its K and V rows beyond the last guess that held are
    written again by a later step.

    A step of a graph that takes in no tokens, such as `vision`, brings no sequence and no row.

    `extra` are the graph's other inputs by name: float32 arrays (float64 in a float64 graph) of numbers that the
    input's dtype holds, int32 or bool. One that has the name of an index array takes its place.
    """

    ids: Int32  # [N]
    query_start: Int32  # [B + 1]
    past: Int32  # [B]
    tables: Int32  # [B, pages]
    page_size: int
    seats: Int32  # [B]
    rows: Int32  # [L]
    fetch: Int32 | None = None  # [F]
    draws: Draws | None = None  # of B sequences
    drafts: Int32 | None = None  # [B]
    graph: str = "main"
    extra: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def whole(cls, sequences: Sequence[Sequence[int]]) -> Step:
        """One step that brings whole sequences, each in a page of its own, and hands back the logits of every token."""
        lengths = [len(ids) for ids in sequences]
        each, every = np.arange(len(sequences), dtype=np.int32), np.arange(sum(lengths), dtype=np.int32)
        return cls(
            ids=np.concatenate([np.array(ids, np.int32) for ids in sequences]),
            query_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            past=np.zeros(len(sequences), np.int32),
            tables=each[:, None],
            page_size=max(lengths),
            seats=each,
            rows=every,
        )

    @classmethod
    def without_tokens(cls, graph: str, extra: Mapping[str, npt.NDArray[Any]]) -> Step:
        """One step of a graph that takes in no tokens, such as `vision`."""
        none = np.zeros(0, np.int32)
        return cls(none, np.zeros(1, np.int32), none, none[:, None], 1, none, none, graph=graph, extra=extra)

    @property
    def new(self) -> Int32:
        """New tokens per sequence `[B]`."""
        return np.diff(self.query_start)

    @property
    def lengths(self) -> Int32:
        """Context length per sequence once the step is done `[B]`."""
        return self.past + self.new

    @cached_property
    def sequence(self) -> Int32:
        """Which sequence each new token belongs to `[N]`."""
        return np.repeat(np.arange(len(self.past), dtype=np.int32), self.new)

    @property
    def seat(self) -> Int32:
        """The seat of the sequence that each new token belongs to `[N]`."""
        return self.seats[self.sequence]

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
        lengths = self.lengths
        starts = np.cumsum(lengths, dtype=np.int32) - lengths
        return np.arange(int(lengths.sum()), dtype=np.int32) - np.repeat(starts, lengths)

    @cached_property
    def context(self) -> Int32:
        """The cache rows that the step may read, sequence after sequence `[C]`."""
        return self._rows(self.context_sequence, self.context_index)

    @property
    def drawn_rows(self) -> tuple[Int32, Int32, Int32]:
        """Of the rows from which tokens are drawn: their places in `rows`, their sequences, and of each how many rows
        of its sequence stand before it, which counts its drafts."""
        assert self.draws is not None
        drawn = np.flatnonzero(self.draws.known > 0).astype(np.int32)
        counts = np.ones(len(drawn), np.int32) if self.drafts is None else self.drafts[drawn] + np.int32(1)
        ends = np.searchsorted(self.rows, self.query_start[drawn + 1]).astype(np.int32)
        ahead = np.arange(int(counts.sum()), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(ends - counts, counts) + ahead, np.repeat(drawn, counts), ahead.astype(np.int32)

    def verified(self, drawn: Int32) -> tuple[Int32, Int32]:
        """Tokens `[B, K + 1]`, K the most drafts of a sequence, and how many of them hold `[B]`, from one token drawn
        from each of `drawn_rows`: every draft that is what was drawn before it lets one more hold."""
        _, sequence, ahead = self.drawn_rows
        drafts = np.zeros(len(self.past), np.int32) if self.drafts is None else self.drafts
        tokens = np.full((len(self.past), int(drafts.max(initial=0)) + 1), NO_NUMBER, np.int32)
        tokens[sequence, ahead] = drawn
        place = self.query_start[1:, None] - drafts[:, None] + np.arange(tokens.shape[1] - 1)  # of each draft in `ids`
        right = (np.arange(tokens.shape[1] - 1) < drafts[:, None]) & (
            self.ids[np.minimum(place, len(self.ids) - 1)] == tokens[:, :-1]
        )
        counts = np.zeros(len(self.past), np.int32)
        counts[sequence] = 1 + np.logical_and.accumulate(right, axis=1).sum(axis=1)[sequence]
        return tokens, counts

    def _rows(self, sequence: Int32, index: Int32) -> Int32:
        return self.tables[sequence, index // self.page_size] * self.page_size + index % self.page_size

    def inputs(self, graph: Graph) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the graph by name: index arrays, made of the compact form above, and what is in `extra`."""
        return {value.name: self.input(value.name) for value in graph.inputs}

    def input(self, name: str) -> npt.NDArray[Any]:
        """One input of the step's graph; BackendError for one that the step does not have."""
        if name in self.extra:
            return self.extra[name]
        if name not in INDEX_ARRAYS:
            raise BackendError(f"the step has no input {name!r}", expected=", ".join((*INDEX_ARRAYS, *self.extra)))
        array: npt.NDArray[Any] = getattr(self, name)
        return array

    def bindings(self, graph: Graph) -> dict[str, int]:
        """The sizes of the graph's symbolic axes: N, C and L, and what the shapes of its other inputs say."""
        found: dict[str, int] = {}
        for value in graph.inputs:
            if value.name in self.extra:
                shape = self.extra[value.name].shape
                for dim, size in zip(value.type.dims, shape, strict=True):
                    if (found.setdefault(dim, size) if isinstance(dim, str) else dim) != size:
                        raise BackendError(f"input {value} is not {value.type}", found=list(shape), where=graph.name)
        return {"N": len(self.ids), "C": int(self.lengths.sum()), "L": len(self.rows)} | found


INDEX_ARRAYS = (
    "ids", "positions", "sequence", "seat", "index", "write", "context", "context_sequence", "context_index", "rows",
)  # fmt: skip
"""The inputs that every step has."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step gave.

    `logits [F, V]` of the rows to fetch. Of an executable that draws, `tokens [B, K + 1]`, K the most drafts that a
    sequence brought, and `counts [B]`, how many tokens of each sequence hold (None: one of each that draws); NO_NUMBER
    stands for a token where the logits held none. A graph without the output `logits` gives none of these.

    `taps` are the values asked for, in any float dtype that holds them exactly, integers as int32. The arrays are the
    caller's: later steps leave them as they are.
    """

    logits: Float | None = None
    tokens: Int32 | None = None
    counts: Int32 | None = None
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
