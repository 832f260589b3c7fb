"""What a request passes before a route is looked for: the size of its headers, who asks, whether there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ernie_rt.errors import OverloadError
from ernie_rt_serve import body
from ernie_rt_serve.events import ClientGone
from ernie_rt_serve.faults import Fault, Shape, openai_error
from ernie_rt_serve.routing import Entry, failure
from ernie_rt_serve.service import Service

CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Gate:
    """Lets a request through that may use its path, which is what the router goes by, whatever a `Host` header says.

    Paths that no route has are for nobody without a key, as if there was something. What is refused here costs next to
    nothing, since most of very many requests at once are: its body is read, which a client may have to send before it
    hears anything, but neither kept nor looked into.
    """

    def __init__(self, app: ASGIApp, entries: Iterable[Entry], service: Service) -> None:
        entries = tuple(entries)
        self._app = app
        self._service = service
        self._settings = service.settings
        self._queued = {(entry.method, entry.path) for entry in entries if entry.queued}
        self._public = {entry.path for entry in entries if entry.access == "public"}
        self._shapes: dict[str, Shape] = {entry.path: entry.shape for entry in entries}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except (Fault, OverloadError) as error:
            fault = self._service.fault(scope["state"]["id"], error)
        else:
            await self._app(scope, receive, send)
            return
        whole = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.body_seconds):
                    whole = await body.drop(receive)
        except ClientGone:
            scope["state"]["gone"] = True
            return
        if not whole:
            fault.headers = {**fault.headers, **body.CLOSE}
        await failure(fault, self._shapes.get(scope["path"], openai_error))(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        most = self._settings.header_bytes
        if sum(len(name) + len(value) for name, value in scope["headers"]) > most:
            raise Fault(431, f"The headers are longer than {most:,} bytes", headers=body.CLOSE)
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            raise Fault(400, "Content-Length and Transfer-Encoding exclude each other", headers=body.CLOSE)
        tenant = self._settings.keys.tenant(headers)
        if tenant is None and scope["path"] not in self._public:
            message = "No valid API key: send `Authorization: Bearer KEY`, or `x-api-key: KEY`"
            raise Fault(401, message, code="invalid_api_key", headers=CHALLENGE)
        scope["state"]["tenant"] = tenant or ""
        if (scope["method"], scope["path"]) in self._queued:
            self._service.dispatcher.check_room()
