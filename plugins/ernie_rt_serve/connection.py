"""uvicorn's connections, with an end to the patience for clients that send or read next to nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ernie_rt_serve.reading import Reading
from ernie_rt_serve.settings import Settings

MOST_INCOMPLETE: Final = 128 << 10
"""Bytes of headers that h11 reads before it refuses them itself; below, the gate does, and says why."""

LEAST_RATE: Final = 1024
"""Bytes a second that a client reads at least, once it has left its connection full."""
AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: what is on its way is dropped, which the system would keep for as long as the client likes otherwise."""


class Connection(H11Protocol):
    """Closed where headers take too long, and where a full one does not empty.

    It is h11's also where httptools is installed, which uvicorn would take and which reads headers without end.

    A body that takes too long is answered (`body.py`), and between requests uvicorn has a limit of its own.
    """

    settings: Settings
    _headers_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.conn = Reading(h11.SERVER, MOST_INCOMPLETE)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            _cancel(self._headers_due)
            self._headers_due = None
        elif self._headers_due is None:
            self._expect_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reading_due)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._headers_due)
        _cancel(self._reading_due)

    def send_400_response(self, msg: str) -> None:
        """Say that what came is not HTTP, and close; without a word where another answer has begun, or was the last."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever is about to answer it need not
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(self.settings.header_seconds, self.transport.abort)

    def _expect_reading(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reading_due = self.loop.call_later(self.settings.stall_seconds, self._check_reading, unread)

    def _check_reading(self, before: int) -> None:
        read = before - self.transport.get_write_buffer_size()
        if read < LEAST_RATE * self.settings.stall_seconds:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self.transport.abort()
        else:
            self._expect_reading()


def connections(settings: Settings) -> type[Connection]:
    """The class of a server's connections."""
    return type("Connection", (Connection,), {"settings": settings})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
