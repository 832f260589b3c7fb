"""Servers for tests: behind a real port, or asked without one; and a model that says what it is told, as it is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette

from ernie_rt import AsyncModel, Caller, Generation, Model, Piece
from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve.app import make_app
from ernie_rt_serve.running import make_server
from ernie_rt_serve.service import Service
from ernie_rt_serve.settings import Settings

SETTINGS = Settings("demo")
KEY = "sk-first"
"""What the server asks for that the fixture `locked` starts."""


def run(body: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    asyncio.run(asyncio.wait_for(body(), seconds))


@dataclass
class Served:
    """A server that runs in a thread."""

    host: str
    port: int
    service: Service
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=10)


@contextmanager
def serving(model: Model, settings: Settings = SETTINGS, **options: Any) -> Iterator[Served]:
    """Serve a model at a free port until the end of the block; `options` are AsyncModel's."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # so that who reads nothing is noticed soon
    begun = threading.Event()
    app, server = None, None

    async def main() -> None:
        nonlocal app, server
        async with AsyncModel(model, **options) as served:
            app = make_app(served, settings)
            server = make_server(app, settings)
            begun.set()
            await server.serve([listener])

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    begun.wait()
    assert app is not None and server is not None
    host, port = listener.getsockname()
    try:
        yield Served(host, port, app.state.service, server)
    finally:
        server.should_exit = True
        thread.join()
        app.state.service.close()


@dataclass
class Reply:
    """What an application answers."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[Any]:
        """The data of its events, the last "[DONE]" left out."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


async def ask(
    app: Starlette,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    gone: asyncio.Event | None = None,
    sent: Callable[[Reply], Awaitable[None]] | None = None,
) -> Reply:
    """Ask an application without a port. The client leaves when `gone` is set; `sent` is awaited with every part."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
        "scheme": "http", "http_version": "1.1", "server": ("test", 80), "client": ("test", 1), "state": {},
    }  # fmt: skip
    reply = Reply()
    messages = iter([{"type": "http.request", "body": data, "more_body": False}])
    left = gone or asyncio.Event()

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.parts.append(message.get("body", b""))
            if sent is not None:
                await sent(reply)

    await app(scope, receive, send)
    return reply


class ScriptedStream(AsyncIterator[Piece]):
    """Gives pieces one by one; an exception among them is raised, an event waited for."""

    def __init__(self, script: Sequence[Piece | BaseException | asyncio.Event], prompt_tokens: int) -> None:
        self._script = list(script)
        self._came: list[Piece] = []
        self._prompt_tokens = prompt_tokens
        self.cancelled = False
        self.queue_seconds = 0.25

    async def __anext__(self) -> Piece:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, Piece):
                self._came.append(step)
                return step
            await step.wait()
        raise StopAsyncIteration

    def take(self, most: int | None = None) -> list[Piece]:
        taken: list[Piece] = []
        while len(taken) != most and self._script and isinstance(step := self._script[0], Piece):
            taken.append(step)
            self._script.pop(0)
        self._came += taken
        return taken

    def cancel(self) -> None:
        self.cancelled = True

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return not self._script

    @property
    def generation(self) -> Generation:
        came = self._came
        return Generation(
            text="".join(piece.text for piece in came),
            ids=tuple(piece.id for piece in came if piece.id is not None),
            finish=(came[-1].finish if came else None) or "cancelled",
            prompt_tokens=self._prompt_tokens,
            prefill_seconds=0.0,
            decode_seconds=0.0,
        )


class ScriptedModel:
    """In the place of an AsyncModel: each answer follows a script, which may be an exception that refuses it."""

    def __init__(self, model: Model, *scripts: Sequence[Piece | BaseException | asyncio.Event] | Exception) -> None:
        self.model = model
        self.streams: list[ScriptedStream] = []
        self.asked: list[SimpleNamespace] = []
        self.otherwise: Sequence[Piece] = ()
        """What it says when no script is left, to requests that the model would take."""
        self._scripts = list(scripts)

    def generate(self, prompt: Any, *, caller: Caller, like: object = None, **options: Any) -> ScriptedStream:
        self.asked.append(SimpleNamespace(prompt=prompt, caller=caller, like=like, options=options))
        if self.otherwise:
            if isinstance(prompt, ChatPrompt):
                self.model.prepare_chat(prompt, None, options)
            else:
                self.model.prepare(prompt, options)
        script = self._scripts.pop(0) if self._scripts else self.otherwise
        if isinstance(script, Exception):
            raise script
        self.streams.append(ScriptedStream(script, len(getattr(prompt, "ids", prompt))))
        return self.streams[-1]

    chat = generate

    def check_room(self, coming: int = 0) -> None:
        pass


def scripted_app(model: Model, *scripts: Any, settings: Settings = SETTINGS) -> tuple[Starlette, ScriptedModel]:
    """An application whose answers follow scripts."""
    served = ScriptedModel(model, *scripts)
    app = make_app(None, settings)
    app.state.service.open(served)
    return app, served


def said(*texts: str, finish: str | None = "stop") -> list[Piece]:
    """Pieces that say so, the last with the end."""
    return [Piece(7, text, finish if n == len(texts) else None) for n, text in enumerate(texts, 1)]  # type: ignore[arg-type]
