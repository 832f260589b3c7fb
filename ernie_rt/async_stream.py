"""The answer of an AsyncModel, as it comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import NoReturn

from ernie_rt.errors import BackendError, ErnieRtError, OptionError
from ernie_rt.generation.stream import Answer, Generation, Piece
from ernie_rt.host import blame
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Event, SequenceState


class AsyncStream(AsyncIterator[Piece]):
    """The pieces of an answer, as they come. Use it in an `async with` block: leaving that cancels what is not done.

    One that is dropped is cancelled as well.
    """

    def __init__(self, engine: Engine, sequence: SequenceState, answer: Answer, backend: str) -> None:
        self.sequence = sequence
        self.began = time.perf_counter()
        self.ended = asyncio.Event()
        self._engine = engine
        self._answer = answer
        self._backend = backend
        self._pieces: deque[Piece] = deque()
        self._news = asyncio.Event()
        self._error: BaseException | None = None

    async def __anext__(self) -> Piece:
        """The next piece; what went wrong with the request is raised here."""
        while not self._pieces:
            if self._error is not None:
                with blame(self._backend):
                    raise self._error
            if self.ended.is_set():
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._pieces.popleft()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self._engine.cancel(self.sequence)

    def __reduce__(self) -> NoReturn:
        raise OptionError(
            "a stream cannot be copied or sent to another process",
            hint="What has come of it can be sent: its pieces, and `generation`",
        )

    @property
    def generation(self) -> Generation:
        """What has come so far, read or not; its `finish` is "cancelled" where the end has not."""
        return self._answer.generation

    @property
    def waits(self) -> bool:
        """Whether nothing of it was computed yet."""
        return self.sequence.cached is None and not self.ended.is_set()

    @property
    def queue_seconds(self) -> float:
        """How long it has waited to be begun."""
        ended = time.perf_counter() if self.waits else max(self.sequence.admitted, self.began)
        return ended - self.began

    def belongs_to(self, engine: Engine) -> bool:
        return self._engine is engine

    def take(self, most: int | None = None) -> list[Piece]:
        """The pieces that are there and were not read, or the first so many of them, without waiting."""
        count = len(self._pieces) if most is None else min(most, len(self._pieces))
        return [self._pieces.popleft() for _ in range(count)]

    def cancel(self) -> None:
        """End it; what has come can still be read."""
        self._engine.cancel(self.sequence)

    def fail(self, error: ErnieRtError) -> None:
        """End it with an error."""
        if not self.ended.is_set():
            self._error = error
            self._end()
            self._engine.cancel(self.sequence, error)

    def receive(self, event: Event) -> None:
        """Take what became of the sequence."""
        if self.ended.is_set():
            return
        if event.finish == "error":
            self._error = event.sequence.error
        else:
            try:
                self._pieces.append(self._answer.take(event))
            except Exception as error:  # others are told of their events all the same
                self.fail(BackendError(f"the answer cannot be read: {type(error).__name__}: {error}"))
                return
        if event.finish is not None:
            self._end()
        self._news.set()

    def _end(self) -> None:
        self.ended.set()
        self._news.set()
