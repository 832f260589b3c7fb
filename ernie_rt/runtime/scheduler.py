"""Who comes next: policy alone, over the arrays of `Seats` and `Rows`.

A sequence that brings one token is a decode, one that brings more a prefill. Decodes come first in a mixed step, then
prefills in the order of arrival; where they do not mix, they alternate. Rows for a whole prompt are taken when a
sequence is admitted, and a page at a time after that; when none is left, the sequence of the lowest rank (of the
highest `priority`, and of those the one admitted last) gives back all of its own and waits to be computed anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ernie_rt.contract.protocols import CacheShape, StepLimits
from ernie_rt.contract.step import Int32
from ernie_rt.runtime.batch import Batch, gather_batch
from ernie_rt.runtime.encoder import Encoder
from ernie_rt.runtime.items import Features
from ernie_rt.runtime.kept_rows import KeptRows, Load
from ernie_rt.runtime.rows import PagedRows, Rows
from ernie_rt.runtime.seats import Seats
from ernie_rt.runtime.sequence import Finish, SequenceState
from ernie_rt.runtime.slots import SlotRows
from ernie_rt.runtime.statistics import Counters
from ernie_rt.runtime.waiting import Waiting

Drafter = Callable[[SequenceState, int], Sequence[int]]
"""Guesses how a sequence goes on: at most so many tokens, perhaps none. What it guesses changes no answer."""


class Scheduler:
    """Sequences waiting and running, and the seats and rows that they hold."""

    def __init__(
        self,
        cache: CacheShape,
        admits: StepLimits,
        max_context: int,
        *,
        ahead: int = 0,
        reuse: bool = True,
        drafter: Drafter | None = None,
        kept: KeptRows | None = None,
        encoder: Encoder | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`ahead` is the executable's; with `reuse` rows of earlier sequences take the place of computing them, those
        that are `kept` on disk included. `encoder` has the features of a model that sees, `counters` are those to count
        with (None: its own)."""
        self.cache = cache
        self.admits = admits
        self._ahead = ahead
        self._drafter = drafter if admits.max_drafts else None
        slots = cache.kind == "slots"
        self.capacity = min(max_context, cache.page_size * (1 if slots else cache.pages))
        self.waiting = Waiting()
        self.counters = counters or Counters()
        self.encoder = encoder
        # No more sequences than tokens in a step, so that every decode has its place in each.
        count = min(admits.max_sequences, admits.max_tokens)
        self.seats = Seats(count)
        self._slots = SlotRows(cache, self.seats.entered, self.seats.computed, reuse, kept) if slots else None
        self.rows: Rows = self._slots or PagedRows(cache, count, self.capacity, reuse, kept)
        self._order: list[int] = []  # the seats at work in the order of admission
        self._refused: tuple[SequenceState, int] | None = None  # who found too few rows, and when
        self._prefilled = False  # whether the last step that was composed was one of prefills

    @property
    def running(self) -> list[SequenceState]:
        """The sequences at work in the order of admission."""
        return [sequence for seat in self._order if (sequence := self.seats.sequences[seat]) is not None]

    @property
    def busy(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.waiting or self._order)

    def compose(self) -> Batch | None:
        """The next step of those that are admitted, or None when none of them has a token ready. Takes the rows that it
        needs."""
        if not self._order:
            return None
        order = np.array(self._order, np.int32)
        wanted = np.minimum(self.seats.ready(order), np.minimum(self.seats.chunk[order], self.admits.max_tokens))
        decodes, prefills = order[wanted == 1], order[wanted > 1]
        if not self.admits.mixed and self._slots is not None:
            # One whose last token is on its way has none to bring: those above its slot wait until it is gone.
            decodes = self._slots.gapless(decodes)
        alternate = not self.admits.mixed and len(prefills) > 0
        if alternate and not self._prefilled:
            decodes = decodes[:0]
        guesses = self._guesses(decodes) if self._drafter is not None else {}
        left_out: set[int] = set()
        decodes = self._with_rows(decodes, guesses, left_out)
        guesses = {seat: drafts for seat, drafts in guesses.items() if seat not in left_out}
        if alternate and len(decodes):
            prefills = prefills[:0]
        self._prefilled = bool(len(prefills))
        chosen, new = self._prefills(prefills, wanted[wanted > 1][: len(prefills)], decodes, guesses, left_out)
        if not len(chosen):
            return None
        return gather_batch(self.seats, chosen, new, self._ahead, guesses)

    def compose_piece(self) -> Features | None:
        """Of what a piece is to be encoded next, or None where nobody waits for any that is not on its way. Those of
        one priority take turns, so that a picture does not wait for a long video."""
        for sequence in sorted(self.waiting.aside, key=lambda sequence: sequence.request.priority):
            for features in sequence.features.values():
                if features.due:
                    self.waiting.aside.move_to_end(sequence)
                    return features
        return None

    def waiting_for(self, features: Features) -> list[SequenceState]:
        return [sequence for sequence in self.waiting if features in sequence.features.values()]

    def enter(self, batch: Batch) -> None:
        """The step of a batch is submitted."""
        seats = self.seats
        seats.enter(batch.seats, batch.new, batch.skipped)
        seats.unread[batch.seats] += 1
        seats.flying[batch.seats] += batch.samples
        if batch.guesses:
            seats.guessed[batch.seats] = batch.drafts > 0

    def release(self, sequence: SequenceState, finish: Finish, *, sound: bool = True) -> None:
        """End a sequence, and take back what it holds; `sound` rows may be found by others."""
        sequence.finish = finish
        sequence.features.clear()
        self.counters.finished[finish] += 1
        self._refused = None
        if sequence.seat < 0:
            self.waiting.remove(sequence)
        else:
            self._vacate(sequence, sound=sound)
        self.waiting.serve(sequence, len(sequence.tokens) - len(sequence.request.ids))
        self.waiting.leave(sequence)

    def remember(self, sequence: SequenceState) -> None:
        """The rows of a running sequence's prompt are whole: others may use them."""
        self.rows.remember(sequence.seat, sequence)
        self.waiting.share(sequence)

    def fell_short(self, sequence: SequenceState, rows: int) -> None:
        """Of the rows that a sequence was to have from disk the first ones alone are there."""
        if sequence.cached == sequence.reused:  # it was never admitted before
            self.counters.cached_tokens -= sequence.reused - rows
            sequence.cached = rows
        sequence.reused = rows
        self.seats.begin(sequence.seat, rows)
        if self._lacks(sequence):
            self._preempt(sequence.seat)
            self.waiting.put_aside(sequence)

    def admit(self) -> None:
        """Give seats and rows to those that wait, as far as there are any; then `rows.copies` are to be made.

        At most one of them has rows come from disk. Who lacks features is put aside until they are encoded, and so
        holds up nobody; not more of them than there are seats, which bounds what features take.
        """
        for seeing in [each for each in self.waiting.aside if each.encoded]:
            self.waiting.resume(seeing)
            self._refused = None
        while self.seats.next is not None and (sequence := self.waiting.first()) is not None:
            if self._refused == (sequence, self.rows.changes):
                return  # nothing has changed since
            if not self.rows.admit(self.seats.next, sequence, self._lacks):
                if sequence.encoded or len(self.waiting.aside) >= len(self.seats.sequences):
                    self._refused = sequence, self.rows.changes
                    return
                self.waiting.put_aside(sequence)
                continue
            self._order.append(self.seats.next)
            self.waiting.remove(sequence)  # once it is counted as running: it is never nowhere
            if sequence.cached is None:
                sequence.cached = sequence.reused
                sequence.admitted = time.perf_counter()
                sequence.cached_after_change = sum(stop - start for start, stop in sequence.holes)
                self.waiting.serve(sequence, len(sequence.tokens))
                self.counters.prompt_tokens += len(sequence.tokens)
                self.counters.cached_tokens += sequence.reused
            self.seats.take(sequence, draws=self._ahead > 0, leads=self._drafter is None)
            if self.rows.copies and isinstance(self.rows.copies[-1], Load):
                return  # one a step: others go on meanwhile, and whoever begins alike sees how far it came

    def _lacks(self, sequence: SequenceState) -> bool:
        return self.encoder is not None and self.encoder.lacks(sequence)

    def _guesses(self, decodes: Int32) -> dict[int, list[int]]:
        """Drafts by seat, for decodes whose tokens are all known, as far as a step has room for them."""
        assert self._drafter is not None
        seats, found = self.seats, dict[int, list[int]]()
        room = self.admits.max_tokens - len(decodes)
        for seat in decodes.tolist():
            sequence = seats.sequences[seat]
            assert sequence is not None
            known = int(seats.known[seat])
            if seats.unread[seat] or known != seats.entered[seat] + 1 or not sequence.request.reuses:
                continue  # what keeps logits or values keeps no guesses
            most = min(self.admits.max_drafts, room, int(seats.end[seat]) - known)
            drafts = list(self._drafter(sequence, most))[:most] if most > 0 else []
            if drafts:
                found[seat] = drafts
                room -= len(drafts)
        return found

    def _with_rows(self, decodes: Int32, guesses: dict[int, list[int]], left_out: set[int]) -> Int32:
        """Those of the decodes that have rows for their tokens, once sequences admitted later have made room.

        The others, and all that have gone or are to go, are then `left_out`.
        """
        needed = self.seats.entered[decodes] + 1
        for place, seat in enumerate(decodes.tolist() if guesses else ()):
            needed[place] += len(guesses.get(seat, ()))
        for place in np.flatnonzero(self.rows.short(decodes, needed)).tolist():
            seat = int(decodes[place])
            if seat not in left_out and not self._reserve(seat, int(needed[place]), left_out):
                left_out.add(seat)
        if not left_out:
            return decodes
        return np.array([seat for seat in decodes.tolist() if seat not in left_out], np.int32)

    def _reserve(self, seat: int, rows: int, left_out: set[int]) -> bool:
        """Make sure of so many rows; preempt who has the lowest rank when there are none. False: not in this step."""
        while not self.rows.grow(seat, rows):
            last = self._lowest()
            left_out.add(last)  # it has gone, or can go once its tokens are known and takes no more now
            if last == seat or self.seats.unread[last]:
                return False
            self._preempt(last)
        return True

    def _lowest(self) -> int:
        """The seat of the lowest rank."""
        priorities = [sequence.request.priority for sequence in self.running]
        return self._order[len(priorities) - 1 - priorities[::-1].index(max(priorities))]

    def _preempt(self, seat: int) -> None:
        sequence = self.seats.sequences[seat]
        assert sequence is not None
        self._vacate(sequence, sound=True)
        sequence.logits.clear()
        sequence.taps.clear()
        self.waiting.add_again(sequence)
        self.counters.preemptions += 1

    def _vacate(self, sequence: SequenceState, *, sound: bool) -> None:
        seat = sequence.seat
        sequence.entered = int(self.seats.entered[seat])
        self._order.remove(seat)
        length = min(int(self.seats.computed[seat]), len(sequence.tokens))
        self.rows.release(seat, sequence, length if sound else 0)
        self.seats.leave(seat)

    def _prefills(
        self,
        prefills: Int32,
        wanted: Int32,
        decodes: Int32,
        guesses: dict[int, list[int]],
        left_out: set[int],
    ) -> tuple[Int32, Int32]:
        """The decodes, and behind them prefills for as many tokens as are left, with how many tokens each brings."""
        if not len(prefills):
            return decodes, np.ones(len(decodes), np.int32)
        chosen, new = decodes.tolist(), [1] * len(decodes)
        budget = self.admits.max_tokens - len(decodes) - sum(map(len, guesses.values()))
        room = len(prefills) if self.admits.max_prefills is None else self.admits.max_prefills
        for seat, tokens in zip(prefills.tolist(), wanted.tolist(), strict=True):
            tokens = min(tokens, budget)
            # A rest of one token would be a decode.
            if tokens >= (1 if self.admits.mixed else 2) and room and seat not in left_out:
                chosen.append(seat)
                new.append(tokens)
                budget -= tokens
                room -= 1
        return np.array(chosen, np.int32), np.array(new, np.int32)
