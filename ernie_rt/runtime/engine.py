"""The engine: submits steps, reads their results, samples, and ends sequences."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np

from ernie_rt.contract.protocols import Executable
from ernie_rt.contract.step import NO_NUMBER, Pending, StepResult
from ernie_rt.errors import BackendError, ContextError, ErnieRtError, ForkError, PromptError
from ernie_rt.graph.types import TensorType
from ernie_rt.runtime.batch import Batch, make_step
from ernie_rt.runtime.kept_rows import KeptRows, Load
from ernie_rt.runtime.scheduler import Drafter, Scheduler
from ernie_rt.runtime.sequence import Event, Finish, Request, SequenceState
from ernie_rt.runtime.statistics import Stats
from ernie_rt.runtime.turns import Turns
from ernie_rt.sampling.sampler import Logprobs, Sampled, sample_rows


class Engine:
    """Runs requests on one executable, compiled for sequences of `max_context` tokens.

    With an executable that draws tokens on its device, steps are submitted ahead of the results, a token that is not
    known yet standing as LAST_DRAWN; what such a step computes for a sequence that has ended meanwhile is dropped. A
    sequence that asks for more than a device can do is sampled here, and joins a step when its last token is known; so
    does every one where there is a drafter.

    Several threads may use it: they share its steps, and each finds the events of a sequence in the sequence. After a
    fork it serves the process in which it was made, and no other: ForkError.
    """

    def __init__(
        self,
        executable: Executable,
        max_context: int,
        *,
        reuse: bool = True,
        drafter: Drafter | None = None,
        inputs: Mapping[str, TensorType] = MappingProxyType({}),
        kept: KeptRows | None = None,
    ) -> None:
        """`inputs` are what the graph takes in, and every request brings, beside ids; see Scheduler for the others."""
        self._executable = executable
        self._ahead = executable.ahead
        self._kept = kept
        self._inputs = inputs
        guess = None if drafter is None else partial(self._guess, drafter)
        self._scheduler = Scheduler(
            executable.cache, executable.admits, max_context, ahead=self._ahead, reuse=reuse, drafter=guess, kept=kept
        )
        self._steps: deque[tuple[Batch, Pending]] = deque()
        self._turns = Turns()
        self._leaving: deque[tuple[SequenceState, Finish, Exception | None]] = deque()
        self._process = os.getpid()

    @property
    def capacity(self) -> int:
        """The most tokens that one sequence can have in the cache."""
        return self._scheduler.capacity

    @property
    def places(self) -> int:
        """How many sequences can be at work at once."""
        return len(self._scheduler.seats.sequences)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        keeping = self._kept is not None and self._kept.busy
        return self._scheduler.busy or bool(self._steps) or bool(self._leaving) or keeping

    def stats(self) -> Stats:
        """What was done so far, and how things are; any thread may ask, and may see a step half done."""
        scheduler, counters = self._scheduler, self._scheduler.counters
        cache = scheduler.cache
        return Stats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            cache_rows=cache.pages * cache.page_size,
            held_rows=scheduler.rows.pages_held * cache.page_size,
            **{name: getattr(counters, name) for name in counters.__slots__ if name != "finished"},
            finished=dict(counters.finished),
        )

    def submit(
        self,
        request: Request,
        ends: Callable[[int], bool] | None = None,
        *,
        listener: Callable[[Event], None] | None = None,
    ) -> SequenceState:
        """Queue a request; PromptError when it is empty or could never fit.

        `ends` is told every new token and says whether the sequence ends with it, beside the stop ids. A `listener`
        is told the sequence's events, by whichever thread makes a step.
        """
        self._check_process()
        if not request.ids:
            raise PromptError("the prompt is empty", hint="Give at least one token")
        if request.max_new_tokens < 1 and request.reuses:
            raise PromptError("nothing is asked for", expected="a new token, all logits, or taps")
        if request.most_entered > self.capacity:
            raise ContextError(
                "prompt and answer are longer than the context",
                expected=f"at most {self.capacity} tokens",
                found=f"{len(request.ids)} of prompt and {request.max_new_tokens} new",
                hint="Shorten the prompt, ask for fewer new tokens, or raise max_context",
            )
        if request.inputs.keys() != self._inputs.keys():
            raise PromptError(
                "the request does not bring what the graph takes in",
                expected=", ".join(sorted(self._inputs)) or "ids alone",
                found=", ".join(sorted(request.inputs)) or "ids alone",
            )
        for name, given in request.inputs.items():
            problem = given.problem(len(request.ids), self._inputs[name])
            if problem is not None:
                raise PromptError(f"the input {name!r} {problem}")
        sequence = SequenceState(request, ends, listener)
        self._scheduler.waiting.add(sequence)
        return sequence

    def cancel(self, sequence: SequenceState, error: Exception | None = None) -> None:
        """End a sequence, with an error if there is one; one that has ended already is left alone.

        Its rows are free at once or, while a step is made, when that is done. This neither waits nor calls the
        executable, since Python may collect a generator anywhere, and so cancel its sequence.
        """
        if sequence.finish is not None or os.getpid() != self._process:
            return
        self._leaving.append((sequence, "cancelled" if error is None else "error", error))
        if self._turns.taken_if_free():
            try:
                self._let_go()
            finally:
                self._turns.release()

    def let_go(self) -> None:
        """End the sequences that were cancelled while a step was made; `step` does it as well."""
        with self._turns:
            self._let_go()

    def close(self) -> None:
        """End every sequence, and close the executable; in a process that was forked, which has none, do nothing."""
        if os.getpid() == self._process:
            with self._turns:
                self._steps.clear()
                self._end_all("cancelled")
                try:
                    if self._kept is not None:
                        self._make_copies()
                        self._kept.close(self._scheduler.rows)
                finally:
                    self._executable.close()

    def fail(self, error: Exception) -> None:
        """End every sequence with an error: something went wrong that no step accounts for."""
        with self._turns:
            self._steps.clear()
            self._end_all("error", error)
            self._scheduler.rows.forget()

    def step(self) -> None:
        """Submit the next step, if any sequence is ready, and read the oldest result that is due.

        Whatever the executable raises ends the sequences of that step as errors; what goes wrong with one sequence (its
        masks leave no token, its logits hold NaN, its `ends` raises) ends that sequence alone. The last event of such a
        sequence says "error", and the exception is its `error`. What is no Exception, such as KeyboardInterrupt, is
        passed on, and cancels the sequences of the step.
        """
        self._check_process()
        with self._turns:
            self._let_go()
            self._scheduler.admit()
            batch = None
            if self._make_copies():
                if self._kept is not None:  # now that all rows are where the scheduler says
                    self._kept.work(self._scheduler.rows, patient=not self._scheduler.busy)
                batch = self._scheduler.compose()
                assert batch or self._steps or not self._scheduler.busy, "sequences wait, and none can go on"
            if batch is not None:
                self._submit(batch)
            if self._steps and (batch is None or len(self._steps) > self._ahead):
                self._read(*self._steps.popleft())
            self._let_go()

    def run(self, *sequences: SequenceState) -> Iterator[Event]:
        """Step until these sequences have ended, yielding their events; leaving early cancels the rest.

        When one ends with an error, that is raised in place of its last event, and the rest are cancelled. Several
        runs may take turns, in one thread or several: each yields the events of its own sequences, whoever made the
        step.
        """
        try:
            while True:
                for sequence in sequences:
                    while sequence.events:
                        event = sequence.events.popleft()
                        if event.finish == "error":
                            assert sequence.error is not None
                            raise sequence.error
                        yield event
                if all(sequence.finish is not None and not sequence.events for sequence in sequences):
                    return
                self.step()
        finally:
            for sequence in sequences:
                self.cancel(sequence)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkError(
                "the model was loaded before this process was forked, and threads and devices do not come along",
                hint="Load the model in the child, or start processes by `spawn`",
            )

    def _let_go(self) -> None:
        while self._leaving:
            self._end(*self._leaving.popleft())

    def _guess(self, drafter: Drafter, sequence: SequenceState, most: int) -> Sequence[int]:
        """What a drafter guesses; one that raises ends the sequence, once its step is done."""
        try:
            return drafter(sequence, most)
        except Exception as error:
            self._leaving.append((sequence, "error", error))
            return ()

    def _end_all(self, finish: Finish, error: Exception | None = None) -> None:
        for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
            self._end(sequence, finish, error, sound=False)

    def _end(
        self, sequence: SequenceState, finish: Finish, error: BaseException | None = None, *, sound: bool = True
    ) -> None:
        """End a sequence without a token, if it has not ended; where it is not `sound` its rows are not kept."""
        if sequence.finish is None:
            sequence.error = error
            self._scheduler.release(sequence, finish, sound=sound)
            sequence.tell(Event(sequence, None, finish))

    def _make_copies(self) -> bool:
        """Bring rows to where the next step reads them, from others and from disk; False where that failed."""
        scheduler = self._scheduler
        try:
            for copy in scheduler.rows.copies:
                if not isinstance(copy, Load):
                    self._executable.copy(copy.source, copy.destination, copy.length)
                elif self._kept is not None and (reached := self._kept.load(copy)) < copy.stop:
                    scheduler.fell_short(copy.sequence, reached)
            scheduler.rows.copies.clear()
        except BaseException as error:
            self._fail(scheduler.running, error, forget=True)  # any row may be wrong now
            return False
        return True

    def _submit(self, batch: Batch) -> None:
        scheduler = self._scheduler
        try:
            step = make_step(batch, scheduler.seats, scheduler.rows, scheduler.cache.page_size, self._ahead)
            pending = self._executable.submit(step)
        except BaseException as error:
            self._fail(batch.sequences, error)
            return
        scheduler.enter(batch)
        scheduler.counters.steps += 1
        scheduler.counters.batched += len(batch.seats)
        self._steps.append((batch, pending))

    def _fail(self, sequences: Collection[SequenceState], error: BaseException, forget: bool = False) -> None:
        """End the sequences that an exception concerns, and raise it when it is one that is meant for the caller.

        With `forget` no row of the cache is trusted any more.
        """
        failed = isinstance(error, Exception | SystemExit)
        self._scheduler.counters.failures += failed
        for sequence in sequences:
            self._end(sequence, "error" if failed else "cancelled", error if failed else None, sound=False)
        if forget:
            self._scheduler.rows.forget()
        if not failed:
            raise error

    def _read(self, batch: Batch, pending: Pending) -> None:
        try:
            result = pending.result()
            self._take(batch, result)
        except BaseException as error:
            self._fail(batch.sequences, error)

    def _take(self, batch: Batch, result: StepResult) -> None:
        """Give the sequences of a batch what its step gave, those that are still there."""
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
                sequence.logits.append(result.logits[fetched[place] - batch.fetched[place] : fetched[place]])
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
