"""Many requests at once, each answered by a function."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from ernie_rt.errors import ErnieRtError
from ernie_rt_serve.batch.answers import Answer, Error, answer_of
from ernie_rt_serve.batch.requests import UNREADABLE, Request

Respond = Callable[[str, bytes, str], Awaitable[tuple[int, bytes]]]
"""Path, body and an id for the log, to a status of HTTP and a body."""

AHEAD: Final = 16
"""In order, so many times the concurrency may be done or under way before the first one is."""


@dataclass(slots=True)
class Tally:
    """What has come of a run so far."""

    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, answer: Answer) -> None:
        self.answered += 1
        self.failed += answer.failed
        if answer.response is not None:
            usage = _usage(answer.response.body)
            self.prompt_tokens += usage.prompt_tokens or usage.input_tokens
            self.output_tokens += usage.completion_tokens or usage.output_tokens


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    input_tokens: int = 0
    completion_tokens: int = 0
    output_tokens: int = 0


class _Used(msgspec.Struct):
    usage: _Usage | None = None


def _usage(body: msgspec.Raw) -> _Usage:
    """In the words of either protocol; zeros where there is none."""
    try:
        return msgspec.json.decode(body, type=_Used).usage or _Usage()
    except UNREADABLE:
        return _Usage()


async def answer_all(
    requests: Iterator[Request], respond: Respond, write: Callable[[Answer], None], *, concurrency: int, ordered: bool
) -> None:
    """Answer requests, so many at once; `write` gets answers as they come, or `ordered` as they were asked.

    Requests are taken when their turn comes, so that memory holds few of them. What `write` raises ends all.
    """
    places = enumerate(requests)
    queue = _Queue(write, AHEAD * concurrency) if ordered else None

    async def one_after_another() -> None:
        for place, request in places:
            if queue is not None:
                await queue.room(place)
            answer = await _answer(request, respond)
            if queue is not None:
                await queue.put(place, answer)
            else:
                write(answer)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(one_after_another())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _answer(request: Request, respond: Respond) -> Answer:
    id = f"req_{uuid.uuid4().hex}"
    try:
        return answer_of(request.custom_id, id, await respond(request.url, bytes(request.body), id))
    except ErnieRtError as error:
        return answer_of(request.custom_id, id, Error("failed", str(error)))


class _Queue:
    """Answers that wait for those before them."""

    def __init__(self, write: Callable[[Answer], None], ahead: int) -> None:
        self._write = write
        self._ahead = ahead
        self._next = 0
        self._waiting: dict[int, Answer] = {}
        self._moved = asyncio.Condition()

    async def room(self, place: int) -> None:
        """Wait until this place is not too far ahead of the next answer that is written."""
        async with self._moved:
            await self._moved.wait_for(lambda: place < self._next + self._ahead)

    async def put(self, place: int, answer: Answer) -> None:
        self._waiting[place] = answer
        async with self._moved:
            while self._next in self._waiting:
                self._write(self._waiting.pop(self._next))
                self._next += 1
            self._moved.notify_all()
