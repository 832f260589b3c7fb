"""Answers of protocols whose events have a type, as `/v1/responses` and `/v1/messages` do: whole, or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from ernie_rt import Piece
from ernie_rt_serve import events, routing
from ernie_rt_serve.answers import Answers
from ernie_rt_serve.faults import Fault

Event = dict[str, Any]


class TypedAnswer(Protocol):
    """An answer that is told of its pieces, and gives the events in the order in which they are to be sent."""

    def begin(self) -> Iterator[Event]: ...
    def push(self, piece: Piece) -> Iterator[Event]: ...
    def end(self) -> Iterator[Event]:
        """After the last piece."""
        ...

    def fail(self, fault: Fault) -> Iterator[Event]:
        """In place of all further events."""
        ...

    def body(self) -> dict[str, Any]:
        """The whole answer, once all pieces are in."""
        ...


async def respond(
    request: Request, answers: Answers, answer: TypedAnswer, stream: bool | None, headers: dict[str, str]
) -> Response:
    """The response to a request for one answer, which `answers` holds."""
    if stream:

        def failed(fault: Fault) -> bytes:
            return _packed(answer.fail(fault))

        return await events.stream(request, answers, _events(answers, answer), failed, headers)
    with answers:
        await events.unless_gone(request.receive, _collect(answers, answer))
    return routing.json(answer.body(), headers=headers)


async def _events(answers: Answers, answer: TypedAnswer) -> AsyncIterator[bytes]:
    yield _packed(answer.begin())
    async for _, pieces in answers:
        data = _packed(event for piece in pieces for event in answer.push(piece))
        if data:
            yield data
    yield _packed(answer.end())


async def _collect(answers: Answers, answer: TypedAnswer) -> None:
    async for _, pieces in answers:
        for piece in pieces:
            for _event in answer.push(piece):
                pass


def _packed(these: Iterable[Event]) -> bytes:
    return b"".join(events.event(event, event["type"]) for event in these)
