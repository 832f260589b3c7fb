"""A server's application, asked without a network in between."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Scope

from ernie_rt_serve.batch.run import Respond


def respond_by(app: ASGIApp) -> Respond:
    """Requests go to an application as HTTP would bring them: what it does with them is the same."""

    async def respond(path: str, body: bytes, id: str) -> tuple[int, bytes]:
        scope: Scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "client": None,
            "server": None, "headers": [
                (b"host", b"batch"), (b"content-type", b"application/json"), (b"x-request-id", id.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }  # fmt: skip
        asked = False
        status = 0
        answer = bytearray()

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()  # nobody leaves
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                answer.extend(message.get("body", b""))

        await app(scope, receive, send)
        return status, bytes(answer)

    return respond
