"""HTTP that is meant to be read in two ways, or to cost more to read than to send."""

from __future__ import annotations

import logging
import resource
import socket
import time
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx2
import pytest

from ernie_rt_serve.reading import FREE_CHUNKS, LEAST_CHUNK, MOST_LINES
from support.server_process import server_process
from support.serving import Served
from support.wire import BODY, chunked, head, statuses, told

HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""A request that a proxy in front would take for the body of another one."""
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"


def get(path: bytes = b"/health", *lines: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return head(*lines, start=b"%s %s HTTP/%s" % (method, path, version))


READ_IN_TWO_WAYS = {
    "a length and chunks": head(LENGTH, CHUNKED) + chunked() + HIDDEN,
    "chunks and a length": head(CHUNKED, LENGTH) + chunked() + HIDDEN,
    "chunks of HTTP/1.0": head(CHUNKED, start=b"POST /tokenize HTTP/1.0") + chunked() + HIDDEN,
    "chunked twice": head(CHUNKED, CHUNKED) + chunked() + HIDDEN,
    "chunked, then identity": head(CHUNKED, b"Transfer-Encoding: identity") + chunked() + HIDDEN,
    "gzip, chunked": head(b"Transfer-Encoding: gzip, chunked") + chunked() + HIDDEN,
    "identity": head(b"Transfer-Encoding: identity", LENGTH) + BODY + HIDDEN,
    "xchunked": head(b"Transfer-Encoding: xchunked") + chunked() + HIDDEN,
    "quoted": head(b'Transfer-Encoding: "chunked"') + chunked() + HIDDEN,
    "a vertical tab": head(b"Transfer-Encoding: \x0bchunked") + chunked() + HIDDEN,
    "a space before the colon": head(b"Transfer-Encoding : chunked") + chunked() + HIDDEN,
    "two lengths": head(LENGTH, b"Content-Length: 3") + BODY + HIDDEN,
    "two lengths in one": head(b"Content-Length: 14, 3") + BODY + HIDDEN,
    "a length with a sign": head(b"Content-Length: +14") + BODY + HIDDEN,
    "a negative length": head(b"Content-Length: -1") + BODY + HIDDEN,
    "a length in hex": head(b"Content-Length: 0xe") + BODY + HIDDEN,
    "a length with a line": head(b"Content-Length: 1_4") + BODY + HIDDEN,
    "a length in other digits": head("Content-Length: ١٤".encode()) + BODY + HIDDEN,
    "no digits": head(b"Content-Length: ") + BODY + HIDDEN,
    "a chunk with a sign": head(CHUNKED) + b"+e\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "a chunk of 0x": head(CHUNKED) + b"0xe\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "a chunk beyond 64 bits": head(CHUNKED) + b"f" * 40 + b"\r\n" + BODY + HIDDEN,
    "a chunk with another end": head(CHUNKED) + b"e\r\n" + BODY + b"xx0\r\n\r\n" + HIDDEN,
    "an extension with a new line": head(CHUNKED) + chunked(extension=b";a\nb") + HIDDEN,
    "a null": head(b"X: a\0b", LENGTH) + BODY,
    "a lone carriage return": head(b"X: a\rb", LENGTH) + BODY,
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
    "a space before all": b" GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method of brackets": get(method=b"<script>"),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "a TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(200),
}


@pytest.mark.parametrize("name", READ_IN_TWO_WAYS)
def test_what_can_be_read_in_two_ways_ends_its_connection(server: Served, name: str) -> None:
    """One refusal, and nothing of what lies behind it is taken for a request."""
    began = time.monotonic()
    answer = told(server, READ_IN_TWO_WAYS[name], seconds=60)
    assert statuses(answer) == [400] and time.monotonic() - began < 30, "the server's patience with who is silent"
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "request_",
    [
        head(b"X: a", b" Transfer-Encoding: chunked", LENGTH, CLOSE) + BODY,
        head(b"Transfer-Encoding:", b" chunked", CLOSE) + chunked(),
        head(b"transfer-encoding: CHUNKED", CLOSE) + chunked(extension=b";a=b"),
        head(LENGTH, LENGTH, CLOSE) + BODY,
        head(CHUNKED, CLOSE) + b"e\r\n" + BODY + b"\r\n0\r\nX-Api-Key: a\r\nContent-Length: 5\r\n\r\n",
    ],
    ids=["a folded line", "a folded value", "an extension", "the same length twice", "trailers"],
)
def test_what_can_be_read_in_one_way_is_one_request(server: Served, request_: bytes) -> None:
    answer = told(server, request_)
    assert statuses(answer) == [200] and b'"count":1' in answer


@pytest.mark.parametrize("version", [b"2.0", b"3.0", b"9.9", b"0.9"])
def test_other_versions_are_not_spoken(server: Served, version: bytes) -> None:
    answer = told(server, get(version=version))
    assert statuses(answer) == [505] and b'"type":"invalid_request_error"' in answer


def test_switches_to_other_protocols_are_ignored(server: Served) -> None:
    for name in (b"websocket", b"h2c", b"TLS/1.3"):
        upgrade = b"Upgrade: " + name, b"Connection: Upgrade, HTTP2-Settings, close", b"HTTP2-Settings: AAMAAABk"
        assert statuses(told(server, get(b"/health", *upgrade))) == [200]
    assert statuses(told(server, get(b"localhost:80", CLOSE, method=b"CONNECT"))) == [404]


def test_bodies_where_none_belong_are_none_of_the_next_request(server: Served) -> None:
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
        hidden = get(b"/v1/models", b"Content-Length: %d" % len(HIDDEN), method=method) + HIDDEN
        answer = told(server, hidden + get(b"/health", CLOSE))
        assert len(statuses(answer)) == 2 and statuses(answer)[1] == 200, method


def test_requests_one_behind_another_are_answered_in_their_order(server: Served) -> None:
    answer = told(server, get() * 20 + get(b"/nothing") + get(b"/health", CLOSE))
    assert statuses(answer) == [200] * 20 + [404, 200]


BEHIND_AN_ANSWER = {
    "a body for a route of none": get(b"/health", CHUNKED),
    "a body that is refused at once": head(CHUNKED, start=b"POST /health HTTP/1.1"),
    "a body of no JSON": head(CHUNKED).replace(b"application/json", b"text/plain"),
}


@pytest.mark.parametrize("name", BEHIND_AN_ANSWER)
def test_nonsense_behind_an_answer_ends_the_connection_and_no_more(
    server: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no exception of the server's, whose traceback would fill the log."""
    with server.connect() as connection, caplog.at_level(logging.WARNING, "asyncio"):
        connection.settimeout(5)
        connection.sendall(BEHIND_AN_ANSWER[name])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 ")
        connection.sendall(b"zz zz\r\n\r\n")
        with suppress(ConnectionResetError):
            while connection.recv(1 << 16):
                pass
    assert not [record for record in caplog.records if record.exc_info]


def bare(count: int) -> bytes:
    return b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + b"a:\r\n" * count + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([bare(MOST_LINES - 10)], 200),
        ([bare(MOST_LINES + 10)], 400),
        ([bare(60_000)], 400),
        ([get() + bare(30_000)], 400),
        ([b"a:\r\n" * 60_000], 400),
        ([b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n"], 400),
    ],
    ids=["a few", "many", "very many", "behind another request", "headers alone", "a long path"],
)
def test_headers_without_number_cost_nothing(server: Served, sent: list[bytes], status: int) -> None:
    began = time.process_time()
    assert statuses(told(server, *sent))[-1:] == [status]
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(("size", "chunks", "status"), [
    (1, FREE_CHUNKS - 20, 200), (1, 500_000, 400), (64, 16_000, 400), (LEAST_CHUNK, 8_000, 200),
])  # fmt: skip
def test_a_body_in_crumbs_costs_nothing(server: Served, size: int, chunks: int, status: int) -> None:
    """Of a megabyte in chunks of one byte each, the reading would take seconds in which nobody else is answered."""
    crumb = b"%x\r\n%s\r\n" % (size, b" " * size)
    sent = head(CHUNKED, CLOSE) + crumb * chunks + chunked()
    began = time.process_time()
    answer = told(server, sent, seconds=30)
    assert time.process_time() - began < 1
    assert statuses(answer) == [status] or not answer  # what lies unread when it is closed takes the answer along


def idle(url: str, connections: int) -> None:
    """Hold so many connections, half of them with half a request, and see that others are answered."""
    address = urlsplit(url)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most[0], min(most[1], 2 * connections + 500)), most[1]))
    with ExitStack() as stack:
        for number in range(connections):
            connection = stack.enter_context(socket.create_connection((address.hostname, address.port)))
            if number % 2:
                connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: loc")
        assert httpx2.get(f"{url}/health", timeout=120).status_code == 200, "all are accepted before"
        began = time.monotonic()
        for _ in range(5):
            assert httpx2.get(f"{url}/health", timeout=20).status_code == 200
        assert time.monotonic() - began < 5
    resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_idle_connections_hold_up_nobody(server: Served) -> None:
    idle(server.url, 300)


@pytest.mark.long
def test_ten_thousand_idle_connections_hold_up_nobody() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_500:
        pytest.skip("the system allows too few open files")
    with server_process("--threads", "1", "--quiet") as process:
        idle(process.url, 10_000)
        assert httpx2.post(f"{process.url}/tokenize", json={"prompt": "x"}, timeout=20).status_code == 200
