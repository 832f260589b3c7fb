"""Connections of clients that send, or read, next to nothing."""

from __future__ import annotations

import json
import socket
import time

import httpx2
import pytest

from support.serving import Served


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes a connection."""
    began = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_silent_connections_are_closed_and_hold_up_nobody(impatient: Served) -> None:
    silent = [impatient.connect() for _ in range(200)]
    assert httpx2.get(f"{impatient.url}/health").status_code == 200
    assert closed_after(silent[-1]) > 0.1
    for connection in silent:
        connection.close()


def test_slow_headers_end_a_connection(impatient: Served) -> None:
    with impatient.connect() as connection:
        connection.settimeout(0.1)
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET /health HTTP/1.1\r\nX-Slow: " + b"x" * 100:
                connection.send(bytes([byte]))
                time.sleep(0.05)
        assert 0.35 < time.monotonic() - began < 4


def test_slow_headers_of_a_second_request_end_a_connection(impatient: Served) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        assert closed_after(connection) < 3


def test_a_connection_serves_many_requests_with_pauses(impatient: Served) -> None:
    with httpx2.Client(base_url=impatient.url) as client:
        for _ in range(2):
            assert client.get("/health").status_code == 200
            time.sleep(0.5)
        assert client.get("/health").status_code == 200


def test_long_headers_are_refused(server: Served) -> None:
    reply = httpx2.get(f"{server.url}/health", headers={"x-long": "x" * (64 << 10)})
    assert reply.status_code == 431 and reply.json()["error"]["type"] == "invalid_request_error"
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (300 << 10))
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_two_lengths_are_none(server: Served) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b'Transfer-Encoding: chunked\r\n\r\ne\r\n{"prompt":"x"}\r\n0\r\n\r\n'
        )
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_a_reader_that_stalls_is_let_go(impatient: Served) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((impatient.host, impatient.port))
        ask = {"prompt": "x", "n": 4, "max_tokens": 500, "logprobs": 20, "stream": True, "ignore_eos": True}
        body = json.dumps(ask).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        stats = impatient.service.served.stats
        before = stats().finished["cancelled"]
        deadline = time.monotonic() + 20
        while stats().finished["cancelled"] == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stats().finished["cancelled"] > before, "its answers were computed to their ends"
