"""Slots: one contiguous region of rows a sequence, those at work without a gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.protocols import CacheShape
from ernie_rt.contract.step import Int32
from ernie_rt.runtime.kept_rows import KeptRows, Load
from ernie_rt.runtime.prefix import Identity, common
from ernie_rt.runtime.rows import LEAST_ANYWHERE, Copy, Lacks
from ernie_rt.runtime.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class Held:
    """Whose tokens the first rows of a slot hold, and since when.

    The first `exact` of them follow from these alone. Rows may be in place up to `reach` that the sequence has not come
    to.
    """

    seat: int
    namespace: bytes
    identity: Identity
    exact: int
    reach: int
    time: int


class SlotRows:
    """Slots 0 to n - 1 are those of the n seats at work; the others hold what ended sequences left in them.

    A sequence that begins like one of those, or like the prompt of one at work, gets its rows by a copy, or is given
    that very slot where it is the next one.
    """

    def __init__(
        self, cache: CacheShape, entered: Int32, computed: Int32, reuse: bool, kept: KeptRows | None = None
    ) -> None:
        """`entered [S]` and `computed [S]` are those of Seats; `kept` is what is on disk."""
        self._size = cache.page_size
        self._reuse = reuse
        self._kept = kept
        self._entered, self._computed = entered, computed
        self.tables = np.full((len(entered), 1), -1, np.int32)
        self.held = np.zeros(len(entered), np.int32)
        self.copies: list[Copy | Load] = []
        self.changes = 0
        self._slots: list[Held | None] = [None] * cache.pages
        self._working = 0
        self._time = 0

    @property
    def pages_held(self) -> int:
        return self._working

    def admit(self, seat: int, sequence: SequenceState, lacks: Lacks) -> bool:
        slot = self._working
        if slot == len(self._slots):
            return False
        source, rows = self._alike(sequence)
        chunks = [] if self._kept is None else self._kept.beyond(sequence, rows)
        sequence.reused = chunks[-1].stop if chunks else rows
        changed, sequence.holes = self._anywhere(sequence, source if rows else -1)
        if lacks(sequence):
            return False
        left = self._slots[slot]
        if left is not None and (source != slot or rows < len(left.identity) / 2):  # more would be lost than is used
            self._set_aside(slot, besides=(source, changed))
        if sequence.holes and changed != slot:
            self.copies.append(Copy(changed, slot, sequence.holes[-1][1]))
        if rows and source != slot:
            self.copies.append(Copy(source, slot, rows))
        if chunks:
            self.copies.append(Load(sequence, rows, chunks, self._rows_of(slot, sequence.reused)[rows:]))
        self._slots[slot] = self._now(seat, sequence, len(sequence.request.ids))
        self._working += 1
        self.tables[seat], self.held[seat] = slot, 1
        return True

    def short(self, seats: Int32, rows: Int32) -> npt.NDArray[np.bool_]:
        return np.zeros(len(seats), bool)  # a slot has room for the longest sequence

    def grow(self, seat: int, rows: int) -> bool:
        return True

    def remember(self, seat: int, sequence: SequenceState) -> None:
        """Prompts of sequences at work are looked at as they are."""
        if self._kept is not None:
            self._kept.keep(sequence.request.namespace, sequence.identity(len(sequence.request.ids)))

    def release(self, seat: int, sequence: SequenceState, length: int) -> None:
        self.changes += 1
        slot, last = int(self.tables[seat, 0]), self._working - 1
        self._slots[slot] = self._now(-1, sequence, length)
        if slot != last:
            self._set_aside(slot)
            moved = self._slots[last]
            assert moved is not None
            if rows := max(int(self._entered[moved.seat]), moved.reach):
                self.copies.append(Copy(last, slot, rows))
            self._slots[slot], self._slots[last] = moved, None
            self.tables[moved.seat] = slot
        self._working -= 1
        self.tables[seat], self.held[seat] = -1, 0

    def where(self, namespace: bytes, identity: Identity) -> Int32 | None:
        for slot, held in enumerate(self._slots):
            if held is not None and self._in_common(held, namespace, identity) == len(identity):
                return self._rows_of(slot, len(identity))
        return None

    def forget(self) -> None:
        self.copies.clear()
        self._slots[self._working :] = [None] * (len(self._slots) - self._working)

    def gapless(self, seats: Int32) -> Int32:
        """Of these seats, in the order of their slots, those before which no slot is left out."""
        slots = self.tables[seats, 0]
        order = np.argsort(slots)
        there: Int32 = seats[order[slots[order] == np.arange(len(seats))]]
        return there

    def _now(self, seat: int, sequence: SequenceState, length: int) -> Held:
        self._time += 1
        identity = sequence.identity(length if self._reuse else 0)
        reach = sequence.holes[-1][1] if sequence.holes else 0
        return Held(seat, sequence.request.namespace, identity, sequence.exact(length), reach, self._time)

    def _alike(self, sequence: SequenceState) -> tuple[int, int]:
        """The slot with most of a sequence's first tokens, and how many; its last token has to enter in any case."""
        best, highest = (-1, 0), (0, False)
        request = sequence.request
        if not (self._reuse and request.reuses):
            return best
        identity = sequence.identity(len(sequence.tokens) - 1)
        for slot, held in enumerate(self._slots):
            rows = 0 if held is None else self._in_common(held, request.namespace, identity)
            # Of equal ones the next slot, which needs no copy; but another one where `_anywhere` is to find more.
            rank = rows, (slot != self._working) == request.reuse_after_change
            if rows and rank > highest:
                best, highest = (slot, rows), rank
        return best

    def _in_common(self, held: Held, namespace: bytes, identity: Identity) -> int:
        """How many of these tokens, from the first one on, have rows in a slot that follow from them alone."""
        if held.namespace != namespace:
            return 0
        return min(common(held.identity, identity), held.exact, self._whole(held))

    def _anywhere(self, sequence: SequenceState, source: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """The slot with most rows of a sequence's tokens behind those that are there, at the same places, and which.

        Where `source`, from which the first rows come, is the very slot that the sequence gets, no other can be had:
        copying its rows would take those away.
        """
        best: tuple[int, tuple[tuple[int, int], ...]] = (-1, ())
        request = sequence.request
        if not (self._reuse and request.reuses and request.reuse_after_change):
            return best
        identity, most = sequence.identity(len(sequence.tokens) - 1), 0
        for slot, held in enumerate(self._slots):
            if held is None or held.namespace != request.namespace or (source == self._working != slot):
                continue
            stop = min(len(identity), len(held.identity), self._whole(held))
            runs = _equal_runs(held.identity[:stop], identity[:stop], sequence.reused)
            total = sum(stop - start for start, stop in runs)
            if total > most:
                best, most = (slot, runs), total
        return best

    def _whole(self, held: Held) -> int:
        """How many of a slot's rows hold what they should."""
        return len(held.identity) if held.seat < 0 else int(self._computed[held.seat])

    def _rows_of(self, slot: int, count: int) -> Int32:
        return np.arange(slot * self._size, slot * self._size + count, dtype=np.int32)

    def _set_aside(self, slot: int, besides: tuple[int, ...] = ()) -> None:
        """Move what an ended sequence left in a slot to one where something older is, or nothing."""
        left = self._slots[slot]
        free = [other for other in range(self._working, len(self._slots)) if other not in (slot, *besides)]
        if left is None or not len(left.identity) or not free:
            return

        def time(other: int) -> int:
            held = self._slots[other]
            return 0 if held is None or not len(held.identity) else held.time

        oldest = min(free, key=time)
        if time(oldest) < left.time:
            self.copies.append(Copy(slot, oldest, len(left.identity)))
            self._slots[oldest] = left


def _equal_runs(first: Identity, second: Identity, start: int) -> tuple[tuple[int, int], ...]:
    """Where two sequences of one length are equal, from `start` on, for long enough."""
    edges = np.flatnonzero(np.diff(first[start:] == second[start:], prepend=False, append=False)) + start
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return tuple((begin, end) for begin, end in runs if end - begin >= LEAST_ANYWHERE)
