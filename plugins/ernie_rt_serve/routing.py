"""Routes: a path, who may use it, what answers, and how its faults are spelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ernie_rt_serve.access import Access
from ernie_rt_serve.events import ClientGone
from ernie_rt_serve.faults import Fault, Shape, openai_error
from ernie_rt_serve.service import Service

Endpoint = Callable[[Request, Service], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A route. What `answer` raises becomes an answer in the protocol's `shape`; `body` is what it reads.

    Requests that are `queued` for the model are refused before they are read where too many wait.
    """

    method: Literal["GET", "POST"]
    path: str
    access: Access
    answer: Endpoint
    shape: Shape = openai_error
    body: type[msgspec.Struct] | None = None
    queued: bool = False

    @property
    def prompt(self) -> str | None:
        """The field of the body that the prompt is in, if it has one."""
        fields = () if self.body is None else self.body.__struct_encode_fields__
        return next((name for name in ("messages", "input", "prompt") if name in fields), None)

    def route(self, service: Service) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await self.answer(request, service)
            except ClientGone:  # a status for the log
                return Response(status_code=499)
            except Exception as error:
                return failure(service.fault(request.state.id, error, self.prompt), self.shape)
            finally:
                service.let_go(request)

        return Route(self.path, endpoint, methods=[self.method])


def json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON, of msgspec Structs or anything else that is."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def failure(fault: Fault, shape: Shape) -> Response:
    return json(shape(fault), fault.status, dict(fault.headers))
