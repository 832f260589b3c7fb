"""HTTP/1.1 with as little in between as can be: the client's own time is part of every latency that it measures."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import h11

from ernie_rt import __version__
from ernie_rt.display import shown
from ernie_rt.errors import OptionError

READ_BYTES: Final = 1 << 16


class Client:
    """A server by its address, at `/v1` where that says no path, and the connections to it that are open and idle."""

    def __init__(self, base_url: str, key: str | None = None) -> None:
        url = urlsplit("")
        port: int | None = -1
        with suppress(ValueError):  # brackets without end, a name that none can have, a port beyond all
            url = urlsplit(base_url)
            (url.hostname or "").encode("idna")
            port = url.port if base_url.isascii() and base_url.isprintable() and " " not in base_url else -1
        if url.scheme not in ("http", "https") or not url.hostname or port == -1 or url.query or url.username:
            raise OptionError(
                "--base-url is no address", expected="such as http://127.0.0.1:8000/v1", found=shown(base_url)
            )
        self.host = url.hostname
        self.port = port or (443 if url.scheme == "https" else 80)
        self.root = url.path.rstrip("/") or "/v1"
        self.url = f"{url.scheme}://{url.netloc}{self.root}"
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._headers = [
            ("host", url.netloc),
            ("user-agent", f"ernie-rt/{__version__}"),
            ("content-type", "application/json"),
        ]
        if key is not None:
            self._headers.append(("authorization", f"Bearer {key}"))
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._idle:
            await connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Response]:
        """The response once its head is there; OSError or h11.RemoteProtocolError when there is none.

        A connection that the server has closed since it was last used is replaced by a new one.
        """
        head = h11.Request(
            method=method, target=self.root + path, headers=[*self._headers, ("content-length", str(len(body)))]
        )
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else await Connection.open(self.host, self.port, self._tls)
            try:
                response = await connection.ask(head, body)
                break
            except BaseException as error:
                await connection.close()
                if not (kept and isinstance(error, OSError | h11.RemoteProtocolError)):
                    raise
        try:
            yield response
        finally:
            if connection.reusable():
                self._idle.append(connection)
            else:
                await connection.close()


class Response:
    """A status and headers, then a body in the pieces in which it comes."""

    def __init__(self, connection: Connection, head: h11.Response) -> None:
        self.status = head.status_code
        self.headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        self._connection = connection

    async def piece(self) -> tuple[bytes, float]:
        """The next bytes, none at the end, and when they were read off the socket (`time.perf_counter`)."""
        event = await self._connection.next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b"", self._connection.read_at

    async def read(self, limit: int) -> bytes:
        """The first `limit` bytes of what is left."""
        data = b""
        while len(data) < limit and (piece := (await self.piece())[0]):
            data += piece
        return data[:limit]


class Connection:
    """One connection, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.read_at = 0.0

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> Connection:
        return cls(*await asyncio.open_connection(host, port, ssl=tls, limit=READ_BYTES))

    async def ask(self, head: h11.Request, body: bytes) -> Response:
        for part in (head, h11.Data(body), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        await self._writer.drain()
        while isinstance(event := await self.next_event(), h11.InformationalResponse):
            pass
        assert isinstance(event, h11.Response)
        return Response(self, event)

    async def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self._reader.read(READ_BYTES)
            self.read_at = time.perf_counter()
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise ConnectionResetError("the server closed the connection without an answer")
            self._http.receive_data(data)

    def reusable(self) -> bool:
        """Whether another request may follow, which it is then made ready for."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return not self._reader.at_eof()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):  # the other side was quicker
            await self._writer.wait_closed()
