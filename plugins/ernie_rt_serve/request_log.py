"""An id for every request, and a line in the log for each: never what was asked or answered."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID_HEADER: Final = "x-request-id"
GONE: Final = 499
"""Stands for the status where a client has left before its answer was whole."""
ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Ids of clients that are taken over; for others one is drawn."""

KEY_DIGITS: Final = 8
"""Of a key's digest, by which people know it again."""

log = logging.getLogger("ernie_rt_serve.requests")


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID_HEADER, "")
        id = given if ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["id"] = id
        state = scope["state"]
        began = time.perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = id
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            log.info(
                "%s %s %s %d %.3f s, key %s",
                id, scope["method"], ascii(scope["path"])[1:-1][:200], GONE if state.get("gone") else status,
                time.perf_counter() - began, state.get("tenant", "")[:KEY_DIGITS] or "none",
            )  # fmt: skip
