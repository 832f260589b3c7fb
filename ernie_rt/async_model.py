"""A model for many tasks at once: its engine runs in a thread of its own."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Unpack

from ernie_rt.async_stream import AsyncStream
from ernie_rt.errors import OptionError, OverloadError
from ernie_rt.generation.options import GenerateOptions, positive
from ernie_rt.generation.prompt import Prompt
from ernie_rt.runtime.driver import Driver
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Event, SequenceState
from ernie_rt.runtime.statistics import Stats
from ernie_rt.session import Model, Prepared
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.messages import Message

RECENT: Final = 32
"""So many of the last answers tell how long a sequence keeps its place."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    A request of a lower `priority` goes first, and among equals tenants take turns. Prompts share what is cached of
    their beginnings within one `salt` alone.
    """

    tenant: str = ""
    priority: int = 0
    salt: bytes = b""


ANYBODY: Final = Caller()


class AsyncModel:
    """Answers many requests at once, in the tasks of one event loop. Use it in an `async with` block, or `close` it.

        async with AsyncModel(model) as served:
            async with served.chat([{"role": "user", "content": "How many grams are in 5 kilograms?"}]) as stream:
                async for piece in stream:
                    print(piece.text, end="")

    Its engine runs in a thread of its own, and the model may still be used by other threads; it is left open. As many
    sequences are at work at once as the model was loaded for (`max_sequences`). Further ones wait.
    """

    def __init__(self, model: Model, *, max_queue: int | None = None, queue_seconds: float | None = None) -> None:
        """At most `max_queue` requests wait (None: any number), and for at most `queue_seconds`."""
        if max_queue is not None and max_queue != 0:
            max_queue = positive("max_queue", max_queue)
        if queue_seconds is not None and not 0 < queue_seconds < float("inf"):
            raise OptionError("queue_seconds is not possible", expected="a number above 0", found=repr(queue_seconds))
        self.model = model
        self._engine: Engine = model.engine
        self._max_queue = max_queue
        self._queue_seconds = queue_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of what has not ended. Streams are held by their readers alone.
        self._streams: weakref.WeakValueDictionary[SequenceState, AsyncStream] = weakref.WeakValueDictionary()
        self._received = asyncio.Event()
        self._driver = Driver(self._engine, self._deliver)
        self._draining = False
        self._closed = False
        self._taken: deque[float] = deque(maxlen=RECENT)  # seconds from admission to the last token

    async def __aenter__(self) -> AsyncModel:
        self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def generate(
        self,
        prompt: Prompt,
        *,
        caller: Caller = ANYBODY,
        like: AsyncStream | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        """Queue the continuation of a text, token ids or parts, as `Model.generate` has it.

        Checked at once: OptionError or PromptError for what cannot be done, OverloadError where too many wait, or
        serving has come to its end. With `like`, a stream of the same prompt, that prompt is computed once for both.
        """
        return self._submit(self.model.prepare(prompt, options), caller, like)

    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        caller: Caller = ANYBODY,
        like: AsyncStream | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        """Queue the answer to a conversation, as `Model.chat` has it; else as `generate`.

        Pictures are read at once, which holds up the event loop: `await asyncio.to_thread(model.prompt, messages)`
        reads them elsewhere, and gives what is taken here in place of messages.
        """
        return self._submit(self.model.prepare_chat(messages, tools, options), caller, like)

    def stats(self) -> Stats:
        """What was done so far, and how things are."""
        return self._engine.stats()

    def check_room(self, coming: int = 0) -> None:
        """Raise the OverloadError that a request would meet behind so many others that are `coming`, so that nobody
        need prepare one for nothing."""
        if self._draining:
            raise OverloadError("serving has come to its end", "draining")
        stats = self._engine.stats()
        most = None if self._max_queue is None else self._engine.places + self._max_queue
        if most is not None and stats.running + stats.waiting + coming >= most:
            raise OverloadError("too many requests wait", "full", self._seconds_to_wait(stats.waiting))

    async def drain(self, seconds: float | None = None) -> None:
        """Take no more requests, turn away those that wait, and let those at work come to their ends.

        What is still at work after so many `seconds` is cancelled.
        """
        self._draining = True
        self._turn_away()
        try:
            await asyncio.wait_for(self._all_ended(), seconds)
        except TimeoutError:
            self._cancel_all()

    async def close(self) -> None:
        """Cancel what is at work, and end the thread; calling it twice is harmless."""
        self._draining = True
        self._cancel_all()
        if self._loop is not None and not self._closed:
            self._closed = True
            await asyncio.to_thread(self._driver.end)

    def _submit(self, prepared: Prepared, caller: Caller, like: AsyncStream | None) -> AsyncStream:
        loop = self._started()
        self.check_room()
        if like is not None and not like.belongs_to(self._engine):
            raise OptionError("like is a stream of another model", hint="Give one of this AsyncModel, or leave it out")
        request = replace(
            prepared.request,
            tenant=caller.tenant,
            priority=caller.priority,
            namespace=prepared.request.namespace + caller.salt,
            like=None if like is None else like.sequence,
        )
        prepared.answer.begin()
        sequence = self.model.engine.submit(request, prepared.text.push, listener=self._driver.post)
        stream = AsyncStream(self._engine, sequence, prepared.answer, self.model.choice.backend)
        self._streams[sequence] = stream
        self._driver.wake()
        if self._queue_seconds is not None:
            loop.call_later(self._queue_seconds, _expire, weakref.ref(stream), self._queue_seconds)
        return stream

    def _started(self) -> asyncio.AbstractEventLoop:
        """The event loop that everything is delivered to; the first use begins the thread."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._driver.start()
        elif self._loop is not loop:
            raise OptionError("an AsyncModel serves one event loop", hint="Make one for each loop, of the same model")
        return loop

    def _deliver(self, events: list[Event]) -> None:
        """In the engine's thread: hand the events of a step to the loop."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._receive, events)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            for event in events:
                self._engine.cancel(event.sequence)

    def _receive(self, events: list[Event]) -> None:
        for event in events:
            stream = self._streams.get(event.sequence)
            if event.finish is not None:
                self._streams.pop(event.sequence, None)
            if stream is not None:
                stream.receive(event)
                if event.finish in ("stop", "length"):
                    self._taken.append(time.perf_counter() - event.sequence.admitted)
        self._received.set()

    def _turn_away(self) -> None:
        for stream in list(self._streams.values()):
            if stream.waits:
                stream.fail(OverloadError("serving has come to its end", "draining"))

    def _cancel_all(self) -> None:
        for stream in list(self._streams.values()):
            stream.cancel()

    async def _all_ended(self) -> None:
        while self._streams:
            self._received.clear()
            await self._received.wait()

    def _seconds_to_wait(self, waiting: int) -> float:
        """When a place in the queue may be free, by what the last answers took."""
        each = sum(self._taken) / len(self._taken) if self._taken else 1.0
        return min(max(1.0, each * (waiting + 1) / self._engine.places), 600.0)


def _expire(reference: weakref.ref[AsyncStream], seconds: float) -> None:
    stream = reference()
    if stream is not None and stream.waits:
        stream.fail(OverloadError(f"the request waited {seconds:g} s, and was not begun", "expired"))
