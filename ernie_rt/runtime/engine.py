"""The engine: submits steps, reads their results, and ends sequences."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from ernie_rt.contract.protocols import MAX_PATCHES, Executable
from ernie_rt.contract.step import Pending, Step
from ernie_rt.errors import ForkError
from ernie_rt.graph.graph import Graph
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.batch import Batch, make_step
from ernie_rt.runtime.encoder import FEATURE_BYTES, Encoder
from ernie_rt.runtime.intake import Intake
from ernie_rt.runtime.items import PATCHES, Features
from ernie_rt.runtime.kept_rows import KeptRows, Load
from ernie_rt.runtime.results import Results
from ernie_rt.runtime.scheduler import Drafter, Scheduler
from ernie_rt.runtime.sequence import Event, Finish, Request, SequenceState
from ernie_rt.runtime.statistics import Counters, Stats
from ernie_rt.runtime.turns import Turns


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
        kept: KeptRows | None = None,
        graphs: Mapping[str, Graph] = MappingProxyType({}),
        max_patches: int = MAX_PATCHES,
        feature_bytes: int = FEATURE_BYTES,
    ) -> None:
        """`graphs` are those that it was compiled from, where `main` takes in more than index arrays: a step of
        `vision` has at most `max_patches`, and `feature_bytes` of what it gave are kept for sequences to come. See
        Scheduler for the others."""
        self._executable = executable
        self._ahead = executable.ahead
        self._kept = kept
        counters, self._intake = Counters(), Intake.of(graphs)
        taken = self._intake.features
        self._encoder = None if taken is None else Encoder(taken, max_patches, feature_bytes, counters)
        guess = None if drafter is None else partial(self._guess, drafter)
        self._scheduler = Scheduler(
            executable.cache, executable.admits, max_context, ahead=self._ahead, reuse=reuse, drafter=guess, kept=kept,
            encoder=self._encoder, counters=counters,
        )  # fmt: skip
        self._steps: deque[tuple[Batch | Features, Pending]] = deque()
        self._encodes_next = True
        self._turns = Turns()
        self._leaving: deque[tuple[SequenceState, Finish, Exception | None]] = deque()
        self._results = Results(self._scheduler, self._end)
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
        """Queue a request; PromptError when it is empty, could never fit, or is not what the graphs take in.

        `ends` is told every new token and says whether the sequence ends with it, beside the stop ids. A `listener`
        is told the sequence's events, by whichever thread makes a step.
        """
        self._check_process()
        request = self._intake.checked(request, self.capacity)
        sequence = SequenceState(request, ends, listener, shows=self._encoder is not None)
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
            self._forget_features()

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
            submitted = False
            if self._make_copies():
                if self._kept is not None:  # now that all rows are where the scheduler says
                    self._kept.work(self._scheduler.rows, patient=not self._scheduler.busy)
                # Others go on meanwhile: they wait for one piece of a long video, not for all of it.
                turns = (self._encode, self._advance) if self._encodes_next else (self._advance, self._encode)
                submitted = any(turn() for turn in turns)
                assert submitted or self._steps or not self._scheduler.busy, "sequences wait, and none can go on"
            if self._steps and (not submitted or len(self._steps) > self._ahead):
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

    def _advance(self) -> bool:
        """Submit the next step of sequences; False when none of them is ready."""
        scheduler = self._scheduler
        batch = scheduler.compose()
        if batch is None:
            return False
        self._encodes_next = True
        try:
            step = make_step(
                batch, scheduler.seats, scheduler.rows, scheduler.cache.page_size, self._ahead, self._encoder
            )
            pending = self._executable.submit(step)
        except BaseException as error:
            self._fail(batch.sequences, error)
            return True
        scheduler.enter(batch)
        scheduler.counters.steps += 1
        scheduler.counters.batched += len(batch.seats)
        self._steps.append((batch, pending))
        return True

    def _encode(self) -> bool:
        """Submit the next piece of a picture or video; False when nobody waits for one."""
        scheduler = self._scheduler
        features = scheduler.compose_piece()
        if features is None:
            return False
        self._encodes_next = False
        try:
            piece = features.next_piece()
            pending = self._executable.submit(Step.without_tokens(VISION, piece))
        except BaseException as error:
            self._fail_encoding(features, error)
            return True
        scheduler.counters.vision_steps += 1
        scheduler.counters.patches += len(piece[PATCHES])
        self._steps.append((features, pending))
        return True

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

    def _fail_encoding(self, features: Features, error: BaseException) -> None:
        """End the sequences that wait for these features; who shows the item from now on tries anew."""
        self._forget_features()
        self._fail(self._scheduler.waiting_for(features), error)

    def _forget_features(self) -> None:
        if self._encoder is not None:
            self._encoder.forget()

    def _read(self, work: Batch | Features, pending: Pending) -> None:
        try:
            result = pending.result()
            if isinstance(work, Batch):
                self._results.take(work, result)
            elif self._encoder is not None:
                self._encoder.take(work, result)
        except BaseException as error:
            if isinstance(work, Batch):
                self._fail(work.sequences, error)
            else:
                self._fail_encoding(work, error)
