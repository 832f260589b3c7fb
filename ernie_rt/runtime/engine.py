"""The engine: submits steps, reads their results, samples, and ends sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from ernie_rt.backend.protocols import Executable
from ernie_rt.backend.step import Pending, StepResult
from ernie_rt.errors import PromptError
from ernie_rt.runtime.scheduler import Part, Scheduler, make_step
from ernie_rt.runtime.sequence import Event, Finish, Request, Sequence
from ernie_rt.sampling.sampler import Sampled, sample


class Engine:
    """Runs requests on one executable, compiled for sequences of `max_context` tokens.

    With an executable that samples on its device, steps are submitted one ahead of the results, a token that is not
    known yet standing as -1; what such a step computes for a sequence that has ended meanwhile is dropped. A sequence
    that asks for more than the largest logit is sampled here, and joins a step when its last token is known.
    """

    def __init__(self, executable: Executable, max_context: int) -> None:
        self._executable = executable
        self._max_context = max_context
        self._scheduler = Scheduler(executable.cache, executable.admits)
        self._ahead = 1 if executable.samples else 0
        self._steps: deque[tuple[tuple[Part, ...], Pending]] = deque()

    @property
    def capacity(self) -> int:
        """The most tokens that one sequence can have in the cache."""
        return min(self._max_context, self._scheduler.capacity)

    def submit(self, request: Request, ends: Callable[[int], bool] | None = None) -> Sequence:
        """Queue a request; PromptError when it is empty or could never fit.

        `ends` is told every new token and says whether the sequence ends with it, beside the stop ids.
        """
        if not request.ids:
            raise PromptError("the prompt is empty", hint="Give at least one token")
        if request.cached_tokens > self.capacity:
            raise PromptError(
                "prompt and answer are longer than the context",
                expected=f"at most {self.capacity} tokens",
                found=f"{len(request.ids)} of prompt and {request.max_new_tokens} new",
                hint="Raise max_context, shorten the prompt, or lower max_new_tokens",
            )
        sequence = Sequence(request, list(request.ids), ends)
        self._scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence; its rows are free at once. One that has ended already is left alone."""
        if sequence.finish is None:
            self._release(sequence, "cancelled")
            sequence.events.append(Event(sequence, None, "cancelled"))

    def close(self) -> None:
        """End every sequence; the executable is not used any more."""
        self._steps.clear()
        for sequence in self._scheduler.close():
            sequence.finish = "cancelled"
            sequence.events.append(Event(sequence, None, "cancelled"))

    def step(self) -> list[Event]:
        """Submit the next step, if any sequence is ready, and read the oldest result that is due.

        What the executable raises is passed on; a step whose result cannot be read ends its sequences as cancelled.
        What goes wrong with one sequence (its masks leave no token, its logits hold NaN, its `ends` raises) ends that
        sequence alone: the finish of its last event is "error", and the exception is the sequence's `error`.
        """
        parts = self._scheduler.compose()
        assert parts or self._steps or not self._scheduler.busy, "sequences wait, and none can go on"
        if parts:
            pending = self._executable.submit(make_step(parts, self._scheduler.cache.page_size))
            self._steps.append((parts, pending))
            for part in parts:
                part.sequence.cached += part.new
                part.sequence.unread += 1
                part.sequence.in_flight += part.samples
        if self._steps and (not parts or len(self._steps) > self._ahead):
            parts, pending = self._steps.popleft()
            try:
                return self._read(parts, pending)
            except BaseException:
                for part in parts:
                    self.cancel(part.sequence)
                raise
        return []

    def run(self, *sequences: Sequence) -> Iterator[Event]:
        """Step until these sequences have ended, yielding their events; leaving early cancels the rest.

        When one ends with an error, that is raised in place of its last event, and the rest are cancelled. Several
        runs may take turns: each yields the events of its own sequences, whoever made the step.
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
                if all(sequence.finish is not None for sequence in sequences):
                    return
                for event in self.step():
                    event.sequence.events.append(event)
        finally:
            for sequence in sequences:
                self.cancel(sequence)

    def _read(self, parts: tuple[Part, ...], pending: Pending) -> list[Event]:
        ends = np.cumsum([part.rows for part in parts])
        parts_tokens = sum(part.new for part in parts)
        result = pending.result()
        for part in parts:
            part.sequence.unread -= 1
            part.sequence.in_flight -= part.samples
        events: list[Event] = []
        token = 0
        for end, part in zip(ends, parts, strict=True):
            start, token = token, token + part.new
            sequence = part.sequence
            if sequence.finish is not None:
                continue
            if sequence.request.all_logits:
                assert result.logits is not None
                sequence.logits.append(result.logits[end - part.rows : end])
            if sequence.request.taps:
                tokens, rows_here = slice(start, token), slice(end - part.rows, end)
                # A value has a row for each new token of the step, or for each row of logits.
                sequence.taps.append(
                    {name: v[tokens if len(v) == parts_tokens else rows_here] for name, v in result.taps.items()}
                )
            if part.samples:
                events.append(self._sample(sequence, result, int(end) - 1))
            elif sequence.request.max_new_tokens == 0 and sequence.cached == sequence.total and not sequence.unread:
                self._release(sequence, "length")
                events.append(Event(sequence, None, sequence.finish))
        return events

    def _sample(self, sequence: Sequence, result: StepResult, row: int) -> Event:
        """Add the next token to a sequence: the one that the executable sampled, where it could do so by itself."""
        try:
            if result.tokens is not None and sequence.request.sampling.plain:
                sampled = Sampled(int(result.tokens[row]))
            else:
                assert result.logits is not None
                sampled = sample(result.logits[row], sequence.sampler)
            ended = sequence.ends is not None and sequence.ends(sampled.token)
        except Exception as error:
            sequence.error = error
            self._release(sequence, "error")
            return Event(sequence, None, "error")
        sequence.tokens.append(sampled.token)
        sequence.sampler.accept(sampled.token)
        if ended or sampled.token in sequence.request.stop_ids:
            self._release(sequence, "stop")
        elif len(sequence.generated) >= sequence.request.max_new_tokens:
            self._release(sequence, "length")
        return Event(sequence, sampled.token, sequence.finish, sampled.logprobs)

    def _release(self, sequence: Sequence, finish: Finish) -> None:
        move = self._scheduler.release(sequence, finish)
        if move is not None:
            self._executable.copy(move.source, move.destination, move.length)
