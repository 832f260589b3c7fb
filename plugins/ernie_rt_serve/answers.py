"""The answers to one request, as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol

from ernie_rt import AsyncStream
from ernie_rt.errors import OverloadError
from ernie_rt.generation.stream import Generation, Piece
from ernie_rt.runtime.sequence import Finish

Batch = tuple[int, list[Piece]]
"""Which answer, counted from 0, and what has come of it since the last batch: at least one piece."""
MOST_PIECES: Final = 64
"""In a batch: with all of their log probabilities some 100 KB of events, which a reader is to take before the next."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a request took. Prompts count once, however many answers each got.

    `cached_tokens` of the prompts were in the cache, `reused_after_change` more behind a change, and `not_cached` says
    of each prompt why the rest was computed, as Generation has them; `reasoning_tokens` of the answers were reasoning.
    """

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    reasoning_tokens: int
    reused_after_change: int = 0
    not_cached: tuple[str, ...] = ()

    @property
    def cache(self) -> dict[str, Any]:
        """What no protocol has a field for: a part of `usage` in all of them."""
        reasons = [reason for reason in dict.fromkeys(self.not_cached) if reason]
        return {"reused_after_change": self.reused_after_change, "not_cached": "; ".join(reasons)}


class Observer(Protocol):
    """Who is told how answers go: that a picture or video was decoded for one; the first token, and how long it took to
    be begun; further ones; the end."""

    def decoded(self, kind: str) -> None: ...
    def begun(self, seconds: float, queued: float) -> None: ...
    def went_on(self, tokens: int, seconds: float) -> None: ...
    def ended(self, answer: Answer) -> None: ...


@dataclass(slots=True)
class Answer:
    """One answer. `leads` says whether it is the first one to its prompt."""

    stream: AsyncStream
    leads: bool = True
    observer: Observer | None = None
    tokens: int = 0
    reasoning_tokens: int = 0
    finish: Finish | None = None
    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0

    async def next(self) -> list[Piece]:
        """The next piece, and of those that lie behind it already as many as a batch may have."""
        try:
            piece = await anext(self.stream)
        except Exception:
            self.finish = "error"
            raise
        pieces = [piece, *self.stream.take(MOST_PIECES - 1)]
        self._count(pieces)
        if self.finish == "cancelled":  # and not by whoever reads it
            raise OverloadError("the answer was ended before its time, since the server ends", "draining")
        return pieces

    def end(self) -> None:
        """Cancel what has not ended, and tell who observes."""
        if self.finish is None:
            self.stream.cancel()
            self.finish = "cancelled"
        if self.observer is not None:
            self.observer.ended(self)

    def _count(self, pieces: Sequence[Piece]) -> None:
        now, before = time.perf_counter(), self.tokens
        for piece in pieces:
            self.tokens += piece.id is not None
            if piece.reasoning:
                self.reasoning_tokens = self.tokens
        self.finish = pieces[-1].finish
        if not before:
            self.first = self.last = now
        if self.observer is not None and self.tokens:
            if not before:
                self.observer.begun(now - self.began, self.stream.queue_seconds)
            self.observer.went_on(self.tokens - max(before, 1), now - self.last)
        self.last = now


class Answers:
    """Iterate over it, once, in its `with` block: batches of all answers, in the order in which they come.

    Whoever is slow to ask for the next batch finds in it what has come meanwhile. The end of the block cancels
    what has not ended. An error of one answer is raised, and ends all of them.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers
        self._batches = self._merged() if len(answers) > 1 else self._single()
        self._begun: list[Batch] = []
        self._asking: dict[asyncio.Future[list[Piece]], int] = {}
        """Who waits for the next pieces of which answer."""

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._asking:
            if not future.cancel():
                future.exception()  # it failed as well: to look is to say that this is known
        for answer in self._answers:
            answer.end()

    async def begin(self) -> None:
        """Wait for the first batch, which stays; what goes wrong before is raised while a status can still say so."""
        self._begun.append(await anext(self._batches))

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while self._begun:
            yield self._begun.pop()
        async for batch in self._batches:
            yield batch

    async def finish(self) -> None:
        """Wait for all of all answers."""
        async for _ in self:
            pass

    @property
    def generations(self) -> list[Generation]:
        """What has come of each answer."""
        return [answer.stream.generation for answer in self._answers]

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        leading = [answer.stream.generation for answer in self._answers if answer.leads]
        return Usage(
            prompt_tokens=sum(generation.prompt_tokens for generation in leading),
            cached_tokens=sum(generation.cached_tokens for generation in leading),
            answer_tokens=sum(answer.tokens for answer in self._answers),
            reasoning_tokens=sum(answer.reasoning_tokens for answer in self._answers),
            reused_after_change=sum(generation.reused_after_change for generation in leading),
            not_cached=tuple(generation.not_cached for generation in leading),
        )

    async def _single(self) -> AsyncIterator[Batch]:
        (answer,) = self._answers
        while answer.finish is None:
            yield 0, await answer.next()

    async def _merged(self) -> AsyncIterator[Batch]:
        for index in range(len(self._answers)):
            self._ask(index)
        while self._asking:
            done, _ = await asyncio.wait(self._asking, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=self._asking.__getitem__):
                index = self._asking.pop(future)
                pieces = future.result()
                if pieces[-1].finish is None:
                    self._ask(index)
                yield index, pieces

    def _ask(self, index: int) -> None:
        self._asking[asyncio.ensure_future(self._answers[index].next())] = index
