"""HTTP as it is written: requests that no client would send, and what comes back."""

from __future__ import annotations

import re
from contextlib import suppress

from support.serving import Served

BODY = b'{"prompt":"x"}'
"""For /tokenize."""


def head(*lines: bytes, start: bytes = b"POST /tokenize HTTP/1.1", host: bytes = b"localhost") -> bytes:
    """The beginning of a request: for /tokenize, and of JSON, unless that is said otherwise."""
    return b"\r\n".join([start, b"Host: " + host, b"Content-Type: application/json", *lines, b"", b""])


def chunked(body: bytes = BODY, *, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    """A body as one chunk."""
    return b"%x%s%s%s%s0%s%s" % (len(body), extension, end, body, end, end, end)


def told(served: Served, *parts: bytes, seconds: float = 5) -> bytes:
    """All that a server says to these bytes until it closes the connection, or nothing more comes."""
    answer = b""
    with served.connect() as connection:
        connection.settimeout(seconds)
        with suppress(TimeoutError, ConnectionError):
            for part in parts:
                connection.sendall(part)
            while part := connection.recv(1 << 16):
                answer += part
    return answer


def statuses(answer: bytes) -> list[int]:
    """Of all responses that came over a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
