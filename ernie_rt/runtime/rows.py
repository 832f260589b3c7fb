"""Which rows of the cache belong to whom, in arrays by seat. Bookkeeping alone: who may have them is policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.protocols import CacheShape
from ernie_rt.contract.step import Int32
from ernie_rt.runtime.kept_rows import KeptRows, Load
from ernie_rt.runtime.pages import PagePool
from ernie_rt.runtime.prefix import Identity, Partly, PrefixTree
from ernie_rt.runtime.sequence import SequenceState

Lacks = Callable[[SequenceState], bool]
"""Whether a sequence, whose `reused` and `holes` say which rows it would have, lacks features for others."""

LEAST_ANYWHERE: Final = 64
"""Tokens behind a change that are worth a step of their own for what lies before them."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The first `length` rows of one page or slot, to be copied to another before the next step."""

    source: int
    destination: int
    length: int


class Rows(Protocol):
    """Rows of the cache by seat.

    `tables [S, pages]` are the pages of each seat, the first `held[seat]` of its row, and -1 after them. `copies`, of
    rows of the cache or from disk, are to be made, in their order, before the next step is submitted. `changes`
    counts what may have made room: rows that were taken back, or can be shared from now on.
    """

    tables: Int32
    held: Int32
    copies: list[Copy | Load]
    changes: int

    @property
    def pages_held(self) -> int:
        """How many pages, or slots, the seats hold; one that several share counts once."""
        ...

    def admit(self, seat: int, sequence: SequenceState, lacks: Lacks) -> bool:
        """Give a seat rows for all tokens of a sequence, whose `reused` and `holes` then say which are there already.
        False, and nothing else has changed, where there are too few, or the sequence `lacks` features."""
        ...

    def short(self, seats: Int32, rows: Int32) -> npt.NDArray[np.bool_]:
        """Which of the seats hold fewer rows than these."""
        ...

    def grow(self, seat: int, rows: int) -> bool:
        """Give a seat so many rows in all; False where there are too few."""
        ...

    def remember(self, seat: int, sequence: SequenceState) -> None:
        """The rows of a running sequence's prompt are whole: others may use them."""
        ...

    def release(self, seat: int, sequence: SequenceState, length: int) -> None:
        """Take back the rows of a seat; those of its first `length` tokens hold what they should."""
        ...

    def where(self, namespace: bytes, identity: Identity) -> Int32 | None:
        """The rows of the cache that hold these tokens, one each; None unless all are there."""
        ...

    def forget(self) -> None:
        """No row that no seat has holds what it should, and no copy is to be made any more."""
        ...


class PagedRows:
    """Pages, handed to seats in any order, and shared where several sequences begin alike."""

    def __init__(self, cache: CacheShape, seats: int, longest: int, reuse: bool, kept: KeptRows | None = None) -> None:
        """For sequences of `longest` tokens at most; `kept` is what is on disk."""
        self._size = cache.page_size
        self._reuse = reuse
        self._kept = kept
        self._tree = PrefixTree(cache.page_size)
        self.pool = PagePool(cache.pages, self._tree)
        self.tables = np.full((seats, self._pages_for(longest)), -1, np.int32)
        self.held = np.zeros(seats, np.int32)
        self.copies: list[Copy | Load] = []
        self.changes = 0

    @property
    def pages_held(self) -> int:
        return len(self.pool.references) - self.pool.free - self.pool.idle

    def admit(self, seat: int, sequence: SequenceState, lacks: Lacks) -> bool:
        pages, partly = self._known(sequence)
        there = len(pages) * self._size + (0 if partly is None else partly.rows)
        chunks = [] if self._kept is None else self._kept.beyond(sequence, there)
        if chunks:
            partly, there = None, chunks[-1].stop
        runs = self._anywhere(sequence, self._pages_for(there))
        shared = [*pages, *(page for _, run in runs for page in run)]
        total = len(sequence.tokens)
        adopts = partly is not None and partly.whole and not self.pool.references[partly.page]
        missing = self._pages_for(total) - len(shared) - adopts
        if partly is not None and not self._room(missing, [*shared, partly.page]):
            if adopts:
                return False
            partly, there = None, len(pages) * self._size  # without the page to copy from there may be room
        if not self._room(missing, shared):
            return False
        sequence.reused = there
        sequence.holes = tuple((place * self._size, (place + len(run)) * self._size) for place, run in runs)
        if lacks(sequence):
            return False
        for page in shared:
            self.pool.hold(page)
        table = self.tables[seat]
        table[: len(pages)] = pages
        for place, run in runs:
            table[place : place + len(run)] = run
        self.held[seat] = len(pages)
        if partly is not None:
            self.pool.hold(partly.page)
            if adopts:  # to be written on
                self._tree.drop(partly.page)
                table[len(pages)] = partly.page
                self.held[seat] += 1
        self.grow(seat, total)
        if partly is not None and not adopts:
            self.copies.append(Copy(partly.page, int(table[len(pages)]), partly.rows))
            self.pool.give_back(partly.page)
        if chunks:
            start = len(pages) * self._size
            self.copies.append(Load(sequence, start, chunks, self._rows_of(table, there)[start:]))
        return True

    def short(self, seats: Int32, rows: Int32) -> npt.NDArray[np.bool_]:
        missing: npt.NDArray[np.bool_] = self.held[seats] * self._size < rows
        return missing

    def grow(self, seat: int, rows: int) -> bool:
        table, held, wanted = self.tables[seat], int(self.held[seat]), self._pages_for(rows)
        lacking = [place for place in range(held, wanted) if table[place] < 0]  # the others are shared, behind a change
        if len(lacking) > self.pool.free + self.pool.idle:
            return False
        for place in lacking:
            table[place] = self.pool.take(int(table[place - 1]) if place else None)
        self.held[seat] = max(held, wanted)
        return True

    def remember(self, seat: int, sequence: SequenceState) -> None:
        self.changes += 1
        if self._reuse:
            self._add(seat, sequence, len(sequence.request.ids))
        if self._kept is not None:
            self._kept.keep(sequence.request.namespace, sequence.identity(len(sequence.request.ids)))

    def release(self, seat: int, sequence: SequenceState, length: int) -> None:
        self.changes += 1
        if self._reuse:
            self._add(seat, sequence, length)
        table, held = self.tables[seat], int(self.held[seat])
        for page in reversed(table[:held].tolist()):  # the end of a text is less likely to be met again
            self.pool.give_back(page)
        table[:held] = -1
        self.held[seat] = 0

    def where(self, namespace: bytes, identity: Identity) -> Int32 | None:
        pages, partly = self._tree.find(namespace, identity)
        there = len(pages) * self._size + (0 if partly is None else partly.rows)
        if there < len(identity):
            return None
        table = np.array(pages if partly is None else [*pages, partly.page], np.int32)
        return self._rows_of(table, len(identity))

    def forget(self) -> None:
        self.copies.clear()
        self.pool.forget()

    def _add(self, seat: int, sequence: SequenceState, length: int) -> None:
        identity, pages = sequence.identity(length), self.tables[seat, : self._pages_for(length)].tolist()
        for start, stop in sequence.spans(length):
            first = start // self._size
            self._tree.add(
                sequence.request.namespace, identity[start:stop], pages[first : self._pages_for(stop)], first
            )

    def _known(self, sequence: SequenceState) -> tuple[list[int], Partly | None]:
        """Pages that hold the first tokens of a sequence, of which at least the last one has to enter."""
        if not (self._reuse and sequence.request.reuses):
            return [], None
        return self._tree.find(sequence.request.namespace, sequence.identity(len(sequence.tokens) - 1))

    def _anywhere(self, sequence: SequenceState, first: int) -> list[tuple[int, list[int]]]:
        """Runs of pages, from the page `first` on, that hold a sequence's tokens at their places behind other ones."""
        if not (self._reuse and sequence.request.reuses and sequence.request.reuse_after_change):
            return []
        identity = sequence.identity(len(sequence.tokens) - 1)
        runs = self._tree.find_anywhere(sequence.request.namespace, identity, first)
        return [(place, run) for place, run in runs if len(run) * self._size >= LEAST_ANYWHERE]

    def _rows_of(self, table: Int32, count: int) -> Int32:
        """The rows of the first `count` tokens of a sequence that has these pages."""
        index = np.arange(count, dtype=np.int32)
        rows: Int32 = table[index // self._size] * np.int32(self._size) + index % self._size
        return rows

    def _room(self, missing: int, kept: list[int]) -> bool:
        """Whether so many pages can be had without these."""
        return missing <= self.pool.free + self.pool.idle - self.pool.unheld(kept)

    def _pages_for(self, rows: int) -> int:
        return -(-rows // self._size)
