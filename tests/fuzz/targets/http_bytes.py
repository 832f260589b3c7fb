"""Bytes on a connection: requests that are hardly any, several at once, cut anywhere. No socket is opened."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

from uvicorn import Config
from uvicorn.server import ServerState

from ernie_rt_serve.connection import Connection
from ernie_rt_serve.running import make_server
from fuzz.mutations import damaged
from fuzz.served import ALLOWED, KEY, SETTINGS, Server
from fuzz.target import Attempt, Target

STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})(?: [^\r\n]*)?\r\n")
BODY: Final = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
ASK: Final = (
    b"POST /v1/completions HTTP/1.1", b"Host: localhost", b"Authorization: Bearer " + KEY.encode(),
    b"Content-Type: application/json",
)  # fmt: skip
LENGTHS: Final = (
    b"0", b"5", b"+5", b"-1", b"0x5", b"5 5", b"5, 5", b"5,6", b"5.0", b"\xb2", b"", b" ", b"9" * 19, b"9" * 400,
    b"1e3",
)  # fmt: skip
CODINGS: Final = (
    b"chunked", b"CHUNKED", b" chunked", b"\x0bchunked", b"chunked\0", b"chunked, chunked", b"gzip, chunked",
    b"identity",
    b"chunked, identity", b"x", b"", b"chunked;q=1", b"\xe1",
)  # fmt: skip
LINES: Final = (
    b" folded", b"\tfolded", b": none", b"no colon", b"Name : x", b"X: \0", b"X\0: y", b"X: a\rb", b"X: a\nb",
    b"\xff: \xff",
    b"Expect: 100-continue", b"Expect: x", b"Connection: close", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA", b"Host: y", b"Host: \xe9",
    b"Trailer: X",
    b"X-Long: " + b"x" * 3000, b"X-Many: 1\r\n" * 150 + b"X: 1", b"Content-Encoding: gzip", b"Accept-Encoding: x",
    b"Authorization: Bearer x", b"X-Forwarded-For: \x00", b"X-Request-Id: a b", b"Origin: null",
    b"Content-Type: text/plain",
)  # fmt: skip
BEGINNINGS: Final = (
    b"GET / HTTP/1.1", b"GET /health HTTP/1.1", b"GET /v1/models HTTP/1.0", b"HEAD /health HTTP/1.1", b"GET /health",
    b"GET /health HTTP/0.9", b"GET /health HTTP/2.0", b"GET /health HTTP/1.12", b"GET  /health HTTP/1.1",
    b"get / HTTP/1.1",
    b"GET http://x/health HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0",
    b"G\0T / HTTP/1.1",
    b"GET /%00%ff/..%2f HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET /?" + b"x" * 70_000 + b" HTTP/1.1",
    b"DELETE / HTTP/1.1",
    b"GET /v1/models/%f0%9f HTTP/1.1", b"GET //health HTTP/1.1", b"GET /a/../health HTTP/1.1",
    b"\r\n\r\nGET / HTTP/1.1",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"POST /health HTTP/1.1", b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
)  # fmt: skip
SIZES: Final = (
    b"0x5", b"-5", b"+5", b"5 ", b" 5", b"5;a=b", b"5;" + b"x" * 300, b"f" * 17, b"g", b"", b"5\0", b"00000000000005",
)  # fmt: skip


class Wire(asyncio.Transport):
    """What a connection writes; closed, it takes and gives nothing more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        super().__init__({"peername": ("x", 1), "sockname": ("x", 2)})
        self.written = bytearray()
        self.closed = False
        self._loop, self._lost = loop, lost

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._lost)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


class Failures(logging.Handler):
    """What the server says went wrong within it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.said.append(f"{record.getMessage()} {error!r}")


class Wires:
    """Connections of one server, which speaks with nobody else."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._config: Config = make_server(server.apps[1], SETTINGS).config
        self._config.load()
        self.failures = Failures()
        said = logging.getLogger("uvicorn.error")
        said.handlers, said.propagate = [self.failures], False

    async def talk(self, pieces: list[bytes]) -> tuple[bytes, bool]:
        """What the server says to bytes that come in pieces, and whether it has closed the connection by itself."""
        loop, state = asyncio.get_running_loop(), ServerState()
        protocol: Connection = self._config.http_protocol_class(self._config, state, {}, loop)  # type: ignore[call-arg, operator, assignment]
        wire = Wire(loop, lambda: protocol.connection_lost(None))
        protocol.connection_made(wire)
        for piece in pieces:
            if wire.closed:
                break
            protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(200):
            answered = protocol.cycle is None or protocol.cycle.response_complete or protocol.cycle.more_body
            if wire.closed or answered:
                break
            await asyncio.sleep(0.0005)
        await asyncio.sleep(0)
        by_itself = wire.closed
        if not wire.closed:
            protocol.eof_received()
            wire.close()
        await asyncio.sleep(0)
        if state.tasks:
            await asyncio.wait_for(asyncio.gather(*state.tasks), 5)
        assert not state.connections
        return bytes(wire.written), by_itself


def start(folder: Path) -> Attempt:
    server = Server("demo", settings=replace(SETTINGS, own_hosts=True))
    wires = Wires(server)

    def attempt(rng: Random) -> None:
        data, conflicts = drawn(rng)
        wires.failures.said.clear()
        said, closed = server.run(wires.talk(cut(data, rng)))
        statuses = [int(found[1]) for found in STATUS.finditer(said)]
        assert set(statuses) <= ALLOWED | {100, 403}, (said, wires.failures.said)
        assert not said or said.startswith(b"HTTP/1.1 "), said
        assert not wires.failures.said, wires.failures.said
        if conflicts:
            assert statuses in ([400], [431], [505]) and closed, (statuses, closed, said)
        server.check()
        if rng.random() < 0.02:
            said, _ = server.run(wires.talk([b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]))
            assert said.startswith(b"HTTP/1.1 200 ")
        if statuses and statuses[-1] >= 400:
            server.refuse(rng)

    return attempt


def drawn(rng: Random) -> tuple[bytes, bool]:
    """Bytes, and whether they are one request that says in two ways how long it is."""
    kind = rng.randrange(20)
    if kind == 0:
        return rng.randbytes(rng.randrange(300)), False
    if kind == 1:
        return rng.choice((b"GET / HTTP/1.1\r\nX: ", b"GET /")) + b"x" * rng.choice((100, 300_000)), False
    if kind == 2:
        length, coding = rng.choice((b"0", b"5", b"30")), rng.choice((b"chunked", b"Chunked"))
        head = [*ASK, b"Content-Length: " + length, b"Transfer-Encoding: " + coding]
        return b"\r\n".join([*head, b"", b"%x" % len(BODY), BODY, b"0", b"", b""]), True
    requests = b"".join(request(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    return damaged(rng, requests) if rng.random() < 0.3 else requests, False


def request(rng: Random) -> bytes:
    """A request, more or less."""
    end = b"\r\n" if rng.random() < 0.9 else rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r"))
    lines = (
        list(ASK)
        if rng.random() < 0.6
        else [rng.choice(BEGINNINGS), rng.choice((b"Host: localhost", b"Host: localhost", b"Host: x"))]
    )
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(LINES))
    body = b""
    match rng.randrange(8):
        case 0:
            pass
        case 1:
            lines += [b"Content-Length: " + rng.choice(LENGTHS)] * rng.choice((1, 1, 2))
            body = BODY
        case 2:
            lines.append(b"Transfer-Encoding: " + rng.choice(CODINGS))
            body = chunks(rng)
        case 3:
            lines.append(b"Transfer-Encoding: chunked")
            body = chunks(rng, rng.choice(SIZES))
        case 4:
            body = b" " * rng.choice((15_500, 20_000, 70_000))
            lines.append(b"Content-Length: %d" % len(body))
        case 5:
            lines.append(b"Transfer-Encoding: chunked")
            body = chunks(rng)
        case 6:
            body = b"[" * rng.choice((10, 6000))
            lines.append(b"Content-Length: %d" % len(body))
        case _:
            body = BODY
            lines.append(b"Content-Length: %d" % (len(BODY) + rng.choice((0, 0, 0, 1, -1))))
    return end.join([*lines, b"", b""]) + body


def chunks(rng: Random, odd: bytes | None = None) -> bytes:
    pieces = cut(BODY, rng)
    parts = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    if odd is not None:
        parts.insert(rng.randrange(len(parts) + 1), odd + rng.choice((b"\r\n", b"\n", b"")) + b"12345\r\n")
    return b"".join(parts) + rng.choice(
        (b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0", b"")
    )


def cut(data: bytes, rng: Random) -> list[bytes]:
    """Data in a few pieces."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 8))))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


TARGET = Target(
    "http_bytes",
    ("ernie_rt_serve.gate", "ernie_rt_serve.connection"),
    start,
    share=1500,
)
