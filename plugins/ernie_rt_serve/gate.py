"""What a request passes before a route is looked for: the size of its headers, who asks, whether there is room."""

from __future__ import annotations

import asyncio
import re
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

KEY_HEADERS: Final = ("authorization", "x-api-key")
CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
OWN_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[0-9.]+|([a-z0-9-]+\.)*localhost)?(:[0-9]*)?", re.IGNORECASE)
"""A `Host` that no page of the web has: an address, or this machine's own name for itself."""


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
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Fault(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here", headers=body.CLOSE)
        if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] == "1.0"):
            message = "Transfer-Encoding excludes Content-Length, and HTTP/1.0 has none"
            raise Fault(400, message, headers=body.CLOSE)
        if self._settings.own_hosts and not OWN_HOST.fullmatch(headers.get("host", "")):
            message = "Without keys this server answers to localhost and to addresses, not to other names of it"
            raise Fault(403, f"{message}: give it keys, or say --insecure", code="wrong_host", headers=body.CLOSE)
        tenant = self._settings.keys.tenant(headers)
        if tenant and any(len(headers.getlist(name)) > 1 for name in KEY_HEADERS):
            tenant = None  # another program on the way may have gone by the other one
        if tenant is None and scope["path"] not in self._public:
            message = "No valid API key: send `Authorization: Bearer KEY`, or `x-api-key: KEY`"
            raise Fault(401, message, code="invalid_api_key", headers=CHALLENGE)
        scope["state"]["tenant"] = tenant or ""
        if (scope["method"], scope["path"]) in self._queued:
            self._service.dispatcher.check_room()
