"""A client that speaks HTTP over a bare socket: it can break off as networks do, and says when every event came."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, so that closing drops what is on its way and sends a RST in place of a FIN."""


def message(path: str, body: object, method: str = "POST") -> bytes:
    """A request, after which the connection ends."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


@dataclass
class Exchange:
    """An answer that has begun; `seconds` after its request was sent."""

    status: int
    headers: dict[str, str]
    seconds: float
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def events(self) -> AsyncIterator[Any]:
        """The data of its events, the last "[DONE]" left out."""
        async for line in self._reader:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])

    async def json(self) -> Any:
        """A whole answer."""
        return json.loads(await self._reader.readexactly(int(self.headers["content-length"])))

    def reset(self) -> None:
        """Break the connection off."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()


@asynccontextmanager
async def exchange(url: str, path: str, body: object = None, method: str = "POST") -> AsyncIterator[Exchange]:
    """Send a request on a connection of its own, which is the block's, and wait for the head of its answer."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 22)
    try:
        began = time.perf_counter()
        writer.write(message(path, body, method))
        head = await reader.readuntil(b"\r\n\r\n")
        yield Exchange(*_head(head), time.perf_counter() - began, reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@dataclass
class Told:
    """What the events of one choice said, to the last bit of its log probabilities, and when each of them came."""

    text: str = ""
    logprobs: list[Any] = field(default_factory=list)
    finish: str | None = None
    came: list[float] = field(default_factory=list)

    @property
    def said(self) -> tuple[str, list[Any], str | None]:
        """What has to be the same, however it was cut into events."""
        return self.text, self.logprobs, self.finish

    @property
    def gaps(self) -> Iterable[float]:
        """Seconds between one event and the next."""
        return (after - before for before, after in zip(self.came, self.came[1:], strict=False))


async def heard(events: AsyncIterator[Any], most: int | None = None) -> Told:
    """Listen to the end of a streamed chat, or to so many events of it."""
    told = Told()
    async for event in events:
        (choice,) = event["choices"]
        told.text += choice["delta"].get("content") or ""
        told.logprobs += (choice["logprobs"] or {}).get("content", ())
        told.finish = choice["finish_reason"]
        told.came.append(time.perf_counter())
        if len(told.came) == most:
            break
    return told


@dataclass
class Reply:
    """A whole answer to one of many requests, and how long it took to begin."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def at_once(url: str, messages: Sequence[bytes]) -> list[Reply]:
    """Send all requests, each on a connection that stands already, before any answer is read."""
    address = urlsplit(url)
    connections = [socket.create_connection((address.hostname, address.port)) for _ in messages]
    data, began, first = [b""] * len(messages), [0.0] * len(messages), [0.0] * len(messages)
    with selectors.DefaultSelector() as selector:
        for number, (connection, sent) in enumerate(zip(connections, messages, strict=True)):
            selector.register(connection, selectors.EVENT_READ, number)
            began[number] = time.perf_counter()
            connection.sendall(sent)
        while selector.get_map():
            for key, _ in selector.select():
                read = connections[key.data].recv(1 << 16)
                first[key.data] = first[key.data] or time.perf_counter()
                data[key.data] += read
                if not read:
                    selector.unregister(connections[key.data])
                    connections[key.data].close()
    return [_reply(*each) for each in zip(data, began, first, strict=True)]


def _reply(data: bytes, began: float, first: float) -> Reply:
    head, _, body = data.partition(b"\r\n\r\n")
    return Reply(*_head(head), body, first - began)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(status.split()[1]), headers


def percentile(values: Iterable[float], percent: int) -> float:
    """The value below which so many percent of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
