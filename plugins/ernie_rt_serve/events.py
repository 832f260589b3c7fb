"""Answers on their way to a client: whole, or as server-sent events; and the client that leaves before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ernie_rt_serve.answers import Answers
from ernie_rt_serve.faults import Fault

T = TypeVar("T")

DONE: Final = b"data: [DONE]\n\n"
HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""What lies between must pass events on as they come."""

_encode = msgspec.json.Encoder().encode


class ClientGone(Exception):
    """The client has left: nobody is there to be answered."""


def event(data: Any, name: str | None = None) -> bytes:
    """One event, of a msgspec Struct or anything else that is JSON."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return b"%sdata: %s\n\n" % (head, _encode(data))


async def whole(request: Request, answers: Answers) -> None:
    """Wait for the end of all answers, to be found in `answers.generations`; ClientGone ends them."""
    with answers:
        await unless_gone(request.receive, answers.finish())


async def stream(
    request: Request,
    answers: Answers,
    events: AsyncIterator[bytes],
    failed: Callable[[Fault], bytes],
    headers: Mapping[str, str],
) -> Response:
    """A response of `events`, which iterate over `answers`. `failed` gives the last events of one that went wrong.

    It begins with the first token: what goes wrong before is raised here, and gets its own status.
    """
    try:
        await unless_gone(request.receive, answers.begin())
    except BaseException:
        answers.__exit__(None, None, None)
        raise
    return _EventStream(request, answers, events, failed, headers)


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives. When the client leaves before, the work is cancelled: ClientGone."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
        del task  # an error that it ends with holds this frame, and all that led to it


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _EventStream(Response):
    """Events as they come. A reader that is slow gets fewer and longer ones (`Answers`)."""

    media_type = "text/event-stream"

    def __init__(
        self,
        request: Request,
        answers: Answers,
        events: AsyncIterator[bytes],
        failed: Callable[[Fault], bytes],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={**HEADERS, **headers})
        del self.headers["content-length"]
        self._request = request
        self._answers = answers
        self._events = events
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._answers, suppress(ClientGone):
            await unless_gone(receive, self._send(send))
            return
        self._request.state.gone = True

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for data in self._events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except Exception as error:
            data = self._failed(self._request.app.state.service.fault(self._request.state.id, error))
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
