"""Servers that do what a test says, in a thread of their own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The address of an app that runs while the block does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Script:
    """A model that answers `max_tokens` tokens, each a word of the prompt counts as one; and what came in."""

    first: float = 0.0
    """Seconds to the first token."""
    each: float = 0.0
    """Seconds to each further one."""
    slots: int | None = None
    """How many are answered at once; the others wait."""
    usage: bool = True
    cached: int | None = 0
    refuses: tuple[str, ...] = ()
    """Fields that lead to a 400."""
    fails: tuple[int, ...] = ()
    """Requests, counted from 0, that get a 503."""
    cuts: tuple[int, ...] = ()
    """Requests whose stream breaks off."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most: int = 0

    def app(self) -> Starlette:
        room = asyncio.Semaphore(self.slots or 1_000_000)

        async def models(request: Request) -> Response:
            return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

        async def answer(request: Request) -> Response:
            body = await request.json()
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append({**request.headers, "client": str(request.client)})
            if wrong := [name for name in self.refuses if name in body]:
                return JSONResponse({"error": {"message": f"unknown field {wrong[0]}"}}, 400)
            if number in self.fails:
                return JSONResponse({"error": {"message": "draining"}}, 503)
            return StreamingResponse(events(request.url.path, body, number), media_type="text/event-stream")

        async def events(path: str, body: dict[str, Any], number: int) -> AsyncIterator[bytes]:
            chat = path.endswith("/chat/completions")
            if chat:
                yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            async with room:
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                for token in range(body["max_tokens"]):
                    await asyncio.sleep(self.each if token else self.first)
                    text = {"delta": {"content": " a"}} if chat else {"text": " a"}
                    yield event({"choices": [{"index": 0, "finish_reason": None, **text}]})
                    if number in self.cuts:
                        self.at_once -= 1
                        return
                self.at_once -= 1
            end = {"delta": {}} if chat else {"text": ""}
            yield event({"choices": [{"index": 0, "finish_reason": "length", **end}]})
            if self.usage and "stream_options" in body:
                text = body["messages"][0]["content"] if chat else body["prompt"]
                usage: dict[str, Any] = {"prompt_tokens": words(text), "completion_tokens": body["max_tokens"]}
                if self.cached is not None:
                    usage["prompt_tokens_details"] = {"cached_tokens": self.cached}
                yield event({"choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"

        paths = {"/v1/chat/completions": answer, "/v1/completions": answer}
        posts = [Route(path, endpoint, methods=["POST"]) for path, endpoint in paths.items()]
        return Starlette(routes=[Route("/v1/models", models), *posts])


def event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def words(text: str) -> int:
    """Tokens of a prompt, one and a half to a word and 7 of a template."""
    return 7 + len(text.split()) * 3 // 2
