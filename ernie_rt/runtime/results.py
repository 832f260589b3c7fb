"""What the result of a step means for its sequences: rows that are there now, tokens, and ends."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ernie_rt.contract.step import NO_NUMBER, StepResult
from ernie_rt.errors import BackendError, ErnieRtError
from ernie_rt.runtime.batch import Batch
from ernie_rt.runtime.scheduler import Scheduler
from ernie_rt.runtime.sequence import Event, Finish, SequenceState
from ernie_rt.sampling.sampler import Logprobs, Sampled, sample_rows


class End(Protocol):
    """How a sequence ends that gets no token."""

    def __call__(
        self, sequence: SequenceState, finish: Finish, error: BaseException | None = None, *, sound: bool = True
    ) -> None: ...


class Results:
    """Takes results in, in the order of their steps: counts rows, samples where the executable does not, and tells each
    sequence its tokens. What goes wrong with one sequence ends that one alone."""

    def __init__(self, scheduler: Scheduler, end: End) -> None:
        self._scheduler = scheduler
        self._end = end

    def take(self, batch: Batch, result: StepResult) -> None:
        """Give the sequences of a batch what its step gave, those that are still there; BackendError for a result that
        is not what the step asked for."""
        _check(batch, result)
        seats = self._scheduler.seats
        here = seats.tenancy[batch.seats] == batch.tenancy
        at = batch.seats[here]
        seats.unread[at] -= 1
        seats.computed[at] += batch.new[here] + batch.skipped[here]
        seats.flying[at] -= batch.samples[here]
        seats.guessed[at] = False
        if batch.keeps:
            self._keep(batch, here, result)
        if batch.drawn.any():
            self._take_drawn(batch, here & batch.drawn, result)
        hosted = np.flatnonzero(here & batch.samples & ~batch.drawn)
        if len(hosted):
            self._sample(batch, hosted, result)
        if batch.keeps:
            for sequence in batch.sequences:
                seat = sequence.seat
                ended = seat >= 0 and sequence.request.max_new_tokens == 0 and not seats.unread[seat]
                if ended and seats.entered[seat] == seats.known[seat]:
                    self._end(sequence, "length")

    def _keep(self, batch: Batch, here: np.ndarray, result: StepResult) -> None:
        """Keep logits and tapped values for those who asked."""
        tokens, rows, fetched = (np.cumsum(counts) for counts in (batch.new, batch.rows, batch.fetched))
        for place in np.flatnonzero(here).tolist():
            sequence = batch.sequences[place]
            if sequence.request.all_logits:
                assert result.logits is not None
                logits = result.logits[fetched[place] - batch.fetched[place] : fetched[place]]
                if sequence.request.visit is None:
                    sequence.logits.append(logits)
                else:
                    sequence.request.visit(int(self._scheduler.seats.computed[sequence.seat]) - len(logits), logits)
            if sequence.request.taps:
                of_token = slice(tokens[place] - batch.new[place], tokens[place])
                of_row = slice(rows[place] - batch.rows[place], rows[place])
                # A value has a row for each new token of the step, or for each row of logits.
                sequence.taps.append(
                    {name: v[of_token if len(v) == tokens[-1] else of_row] for name, v in result.taps.items()}
                )

    def _take_drawn(self, batch: Batch, drawn: np.ndarray, result: StepResult) -> None:
        """The tokens that the executable has drawn."""
        seats, tokens = self._scheduler.seats, result.tokens
        assert tokens is not None
        at = batch.seats[drawn]
        counts = np.ones(len(tokens), np.int32) if result.counts is None else result.counts
        if batch.guesses:
            rejected = batch.drafts[drawn] + 1 - counts[drawn]
            seats.entered[at] -= rejected
            seats.computed[at] -= rejected
        seats.known[at] += counts[drawn]
        seats.last[at] = tokens[drawn, counts[drawn] - 1]
        places = np.flatnonzero(drawn).tolist()
        if not batch.guesses:
            for place, token in zip(places, tokens[drawn, 0].tolist(), strict=True):
                self._add(batch.sequences[place], token)
        else:
            for place, row, count in zip(places, tokens[drawn].tolist(), counts[drawn].tolist(), strict=True):
                for token in row[:count]:
                    if batch.sequences[place].finish is None:
                        self._add(batch.sequences[place], token)

    def _sample(self, batch: Batch, places: np.ndarray, result: StepResult) -> None:
        """Sample from logits, for whom the executable does not; a draft that is what was sampled lets one more come."""
        seats, logits = self._scheduler.seats, result.logits
        assert logits is not None
        ends = np.cumsum(batch.fetched)
        alone = [place for place in places.tolist() if place not in batch.guesses]
        states = [batch.sequences[place].sampler for place in alone]
        rows = [logits[ends[place] - 1] for place in alone]
        for place, sampled in zip(alone, sample_rows(rows, states), strict=True):
            self._add_sampled(batch.sequences[place], sampled)
        for place in batch.guesses.keys() & set(places.tolist()):
            sequence, drafts = batch.sequences[place], batch.guesses[place]
            seat = sequence.seat
            seats.entered[seat] -= len(drafts)
            seats.computed[seat] -= len(drafts)
            for row, draft in zip(logits[ends[place] - len(drafts) - 1 : ends[place]], [*drafts, None], strict=True):
                (sampled,) = sample_rows(row[None], [sequence.sampler])
                self._add_sampled(sequence, sampled)
                if sequence.finish is not None or sequence.tokens[-1] != draft:
                    break
                seats.entered[seat] += 1
                seats.computed[seat] += 1

    def _add_sampled(self, sequence: SequenceState, sampled: Sampled | Exception) -> None:
        if isinstance(sampled, Exception):
            self._end(sequence, "error", sampled, sound=not isinstance(sampled, BackendError))
            return
        try:
            sequence.sampler.accept(sampled.token)
        except ErnieRtError as error:  # of a constraint
            self._end(sequence, "error", error)
            return
        seats, seat = self._scheduler.seats, sequence.seat
        seats.known[seat] += 1
        seats.last[seat] = sampled.token
        self._add(sequence, sampled.token, sampled.logprobs)

    def _add(self, sequence: SequenceState, token: int, logprobs: Logprobs | None = None) -> None:
        """One more token of a sequence, which may end it."""
        if token == NO_NUMBER:
            hint = "Run the same prompt with `--backend reference` to compare"
            self._end(sequence, "error", BackendError("the logits hold no number to choose", hint=hint), sound=False)
            return
        request, tokens = sequence.request, sequence.tokens
        tokens.append(token)
        generated = len(tokens) - len(request.ids)
        if generated == 1:
            self._scheduler.remember(sequence)
        finish: Finish | None = None
        try:
            ended = sequence.ends is not None and sequence.ends(token)
            if ended or token in request.stop_ids or sequence.sampler.complete:
                finish = "stop"
            elif generated >= request.max_new_tokens:
                finish = "length"
        except Exception as error:
            tokens.pop()
            self._end(sequence, "error", error)
            return
        if finish is not None:
            self._scheduler.release(sequence, finish)
        self._scheduler.counters.generated_tokens += 1
        sequence.tell(Event(sequence, token, finish, logprobs))


def _check(batch: Batch, result: StepResult) -> None:
    """BackendError when a result has not the rows that its step asked for."""
    fetched, logits = int(batch.fetched.sum()), 0 if result.logits is None else len(result.logits)
    if logits != fetched:
        raise BackendError(
            "a step gives other rows of logits than its `fetch` asks for", expected=str(fetched), found=str(logits)
        )
    if not batch.drawn.any():
        return
    if result.tokens is None:
        raise BackendError("a step gives no tokens, though the executable says that it draws them")
    shape = (len(batch.seats), 1 + int(batch.drafts.max()) if batch.guesses else 1)
    if result.tokens.shape != shape or (batch.guesses and result.counts is None):
        raise BackendError(
            "a step gives not the tokens that its `draws` asks for",
            expected=f"tokens {list(shape)}" + (f" and counts [{shape[0]}]" if batch.guesses else ""),
            found=f"tokens {list(result.tokens.shape)}"
            + ("" if result.counts is None else f", counts {list(result.counts.shape)}"),
        )
