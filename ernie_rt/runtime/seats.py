"""What the scheduler knows of the sequences that run, in arrays by seat, so that a step costs no work for each."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.step import Int32
from ernie_rt.runtime.sequence import SequenceState
from ernie_rt.sampling.draws import Draws

ALL: Final[int] = np.iinfo(np.int32).max


class Seats:
    """Seats, each for one running sequence; a number of a seat that is free means nothing.

    Of its sequence, `known` tokens are known, and `flying` more are drawn by steps that are submitted and not read;
    there are `unread` of those. `entered` tokens have entered steps, at most `end` ever will; the steps of `computed`
    are read, so that their rows hold what they should. The first `prompt` are the prompt, and at most `most` are
    generated. `last` is the last token that is known. `drawn` says that the executable draws its tokens, `leads` that
    it goes on before they are known, `guessed` that a step with its drafts is not read yet. A seat's `tenancy` changes
    with its sequence. Where its `entered` tokens reach the start of a `hole` they go on at its end: the rows between
    are there.
    """

    def __init__(self, count: int) -> None:
        def numbers() -> Int32:
            return np.zeros(count, np.int32)

        self.sequences: list[SequenceState | None] = [None] * count
        self.known, self.flying, self.unread = numbers(), numbers(), numbers()
        self.entered, self.computed = numbers(), numbers()
        self.end, self.prompt, self.most, self.chunk, self.last = numbers(), numbers(), numbers(), numbers(), numbers()
        self.hole, self.hole_end = numbers(), numbers()
        self._with_holes: set[int] = set()  # the seats that have one ahead: there seldom are any
        self.drawn, self.leads, self.guessed = (np.zeros(count, bool) for _ in range(3))
        self.tenancy = np.zeros(count, np.int64)
        self._draws = Draws.greedy(count, ALL)
        self._free = list(range(count - 1, -1, -1))

    @property
    def next(self) -> int | None:
        """The seat that is to be taken next; None where all are."""
        return self._free[-1] if self._free else None

    def take(self, sequence: SequenceState, *, draws: bool, leads: bool) -> None:
        """Give the next seat to a sequence, whose tokens the executable draws where it `draws` and is able to."""
        seat = self._free.pop()
        request, params = sequence.request, sequence.request.sampling
        self.sequences[seat] = sequence
        sequence.seat = seat
        self.known[seat], self.flying[seat], self.unread[seat] = len(sequence.tokens), 0, 0
        self.begin(seat, sequence.reused)
        self.end[seat] = request.most_entered
        self.prompt[seat], self.most[seat] = len(request.ids), request.max_new_tokens
        self.chunk[seat], self.last[seat] = request.chunk or ALL, sequence.tokens[-1]
        self.drawn[seat] = draws and sequence.sampler.drawable
        self.leads[seat], self.guessed[seat] = self.drawn[seat] and leads, False
        self.tenancy[seat] += 1
        kept = self._draws
        kept.known[seat] = ALL if request.known_ids is None else request.known_ids
        kept.temperature[seat], kept.top_k[seat] = params.temperature, params.top_k
        kept.top_p[seat], kept.min_p[seat], kept.seed[seat] = params.top_p, params.min_p, sequence.sampler.seed

    def begin(self, seat: int, rows: int) -> None:
        """The first `rows` tokens of a seat's sequence have rows, and those in its holes."""
        self._look_ahead(seat, rows)
        if self.hole[seat] == rows:
            rows = int(self.hole_end[seat])
            self._look_ahead(seat, rows)
        self.entered[seat] = self.computed[seat] = rows

    def _look_ahead(self, seat: int, rows: int) -> None:
        sequence = self.sequences[seat]
        assert sequence is not None
        ahead = next((hole for hole in sequence.holes if hole[0] >= rows), None)
        self.hole[seat], self.hole_end[seat] = ahead or (ALL, ALL)
        (self._with_holes.discard if ahead is None else self._with_holes.add)(seat)

    def skipped(self, seats: Int32, new: Int32) -> Int32:
        """How many rows of each are there behind the next `new` tokens."""
        if not self._with_holes:
            return np.zeros(len(seats), np.int32)
        skipped: Int32 = np.where(
            self.entered[seats] + new == self.hole[seats], self.hole_end[seats] - self.hole[seats], 0
        )
        return skipped

    def enter(self, seats: Int32, new: Int32, skipped: Int32) -> None:
        """So many tokens of each have entered a step."""
        self.entered[seats] += new + skipped
        for seat in seats[skipped > 0].tolist() if self._with_holes else ():
            self._look_ahead(seat, int(self.entered[seat]))

    def leave(self, seat: int) -> None:
        """The sequence of a seat goes."""
        sequence = self.sequences[seat]
        assert sequence is not None
        self.sequences[seat], sequence.seat = None, -1
        self.tenancy[seat] += 1
        self._with_holes.discard(seat)
        self._free.append(seat)

    def total(self, seats: Int32) -> Int32:
        return self.known[seats] + self.flying[seats]

    def ready(self, seats: Int32) -> Int32:
        """How many tokens of each wait to enter a step; those in flight count where the device has them."""
        there = self.known[seats] + np.where(self.leads[seats], self.flying[seats], 0)
        until = np.minimum(there, self.end[seats])
        if self._with_holes:
            until = np.minimum(until, self.hole[seats])
        return np.where(self.guessed[seats], 0, until - self.entered[seats])

    def samples_after(self, seats: Int32, new: Int32) -> npt.NDArray[np.bool_]:
        """Which of them sample a token at the end of a step that takes `new` more of each."""
        total = self.total(seats)
        sampling: npt.NDArray[np.bool_] = (self.entered[seats] + new == total) & (
            total - self.prompt[seats] < self.most[seats]
        )
        return sampling

    def draws(self, seats: Int32, drawing: npt.NDArray[np.bool_]) -> Draws:
        """How the next token of each is drawn; nothing is for those that are not `drawing`."""
        taken = self._draws.rows(seats, np.zeros(len(seats), np.int32))
        taken.known[~drawing] = 0
        taken.position[:] = self.total(seats)
        return taken
