"""h11, with an end to what costs very much more to read than to send: headers without number, bodies in crumbs."""

from __future__ import annotations

import re
from typing import Final

import h11

MOST_LINES: Final = 256
"""Of a request's head. Reading one takes as long as some hundred bytes of a line."""
FREE_CHUNKS: Final = 1024
LEAST_CHUNK: Final = 256
"""A body may come in so many chunks, however small; in more, if they have so many bytes each in the mean."""
LINE: Final = re.compile(rb"\n(\r?\n)?")
"""The end of a line, and of a head where another one follows."""


class Reading(h11.Connection):
    """Raises `h11.RemoteProtocolError` for a request of too many lines or chunks, which ends its connection."""

    _chunks = 0
    _chunked_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE and _lines(self.trailing_data[0]) > MOST_LINES:
            raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._chunked_bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._chunked_bytes += len(event.data)
            whole = self._chunks - 1
            if whole >= FREE_CHUNKS and self._chunked_bytes < LEAST_CHUNK * whole:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


def _lines(data: bytes) -> int:
    """The lines of a head, as far as it is there, and no more than are too many."""
    for number, end in enumerate(LINE.finditer(data), 1):
        if end[1] is not None or number > MOST_LINES:
            return number
    return 0
