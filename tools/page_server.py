"""A server with the page and no model: it answers what it was told to, as OpenAI's do, and remembers the requests."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ernie_rt_serve import page
from ernie_rt_serve.service import Service
from ernie_rt_serve.settings import Settings

STATS: Final = {
    "model": "scripted",
    "backend": "eager",
    "device": "cpu",
    "dtype": "float32",
    "max_context": 2048,
    "requests_running": 0,
    "requests_waiting": 0,
    "cache_usage": 0.0,
    "prefix_cache_hit_rate": 0.0,
    "prompt_tokens_total": 0,
    "generation_tokens_total": 0,
    "preemptions_total": 0,
    "uptime_seconds": 60.0,
    "time_to_first_token_seconds": {"p50": None, "p95": None},
    "time_per_output_token_seconds": {"p50": None, "p95": None},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A stream of `pieces`, each a text or a delta, `pause` seconds apart.

    After them an `endless` one waits for the client to leave, a `broken` one stops without an end, and one with an
    `error` tells that instead.
    """

    pieces: Sequence[str | Mapping[str, Any]]
    finish: str = "stop"
    pause: float = 0.0
    endless: bool = False
    broken: bool = False
    error: str = ""
    cached: int = 0
    prompt: int = 12
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        error = {"error": {"message": self.message, "type": "invalid_request_error", "param": None, "code": None}}
        return JSONResponse(error, self.status, dict(self.headers))


class ScriptedServer:
    """Serves in a thread of its own while it is entered, at `url`."""

    def __init__(self, model: str = "scripted", key: str | None = None) -> None:
        self.script: deque[Answer | Refused] = deque()
        """What the next requests get, the first one first."""
        self.requests: list[dict[str, Any]] = []
        self.left = threading.Event()
        """Set once a client has left an answer before its end."""
        self.stats: dict[str, Any] = {**STATS, "model": model}
        self.history: deque[dict[str, Any]] = deque()
        """What changes in `stats`, each time that they are asked for."""
        self.defaults: dict[str, Any] = {}
        self.card: dict[str, Any] = {}
        """What the model's card says besides."""
        self._key = key
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        service = Service(None, Settings(model))
        routes = [
            *(entry.route(service) for entry in page.ENTRIES),
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/stats", self._stats),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="error", ws="none", lifespan="off", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    def _refusal(self, request: Request) -> Response | None:
        if self._key is None or request.headers.get("authorization") == f"Bearer {self._key}":
            return None
        return Refused(401, "no valid key").response()

    async def _models(self, request: Request) -> Response:
        card = {"id": self.stats["model"], "object": "model", "defaults": self.defaults, **self.card}
        return self._refusal(request) or JSONResponse({"object": "list", "data": [card]})

    async def _stats(self, request: Request) -> Response:
        if self.history:
            self.stats |= self.history.popleft()
        return self._refusal(request) or JSONResponse(self.stats)

    async def _complete(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        self.requests.append(await request.json())
        answer = self.script.popleft()
        if isinstance(answer, Refused):
            return answer.response()
        return StreamingResponse(self._events(answer), headers=answer.headers, media_type="text/event-stream")

    async def _events(self, answer: Answer) -> AsyncIterator[bytes]:
        whole = False
        try:
            for piece in answer.pieces:
                delta = {"content": piece} if isinstance(piece, str) else piece
                yield _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
                await asyncio.sleep(answer.pause)
            if answer.endless:
                await asyncio.Event().wait()
            if answer.error:
                yield _event({"error": {"message": answer.error}})
            if answer.error or answer.broken:
                return
            yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish}]})
            details = {"cached_tokens": answer.cached}
            tokens = {"prompt_tokens": answer.prompt, "completion_tokens": len(answer.pieces)}
            yield _event({"choices": [], "usage": {**tokens, "prompt_tokens_details": details}})
            yield b"data: [DONE]\n\n"
            whole = True
        finally:
            if not whole:
                self.left.set()


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
