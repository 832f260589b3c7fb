"""Bodies: what they may be, how large, how deep, and how soon."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from ernie_rt import Model
from ernie_rt_serve import body
from ernie_rt_serve.settings import Settings
from support.serving import Served, ask, run, said, scripted_app, serving

PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "How many grams are in 5 kilograms?"}], "max_tokens": 1}


def post(server: Served, content: bytes, media: str = "application/json", **headers: str) -> httpx2.Response:
    return httpx2.post(f"{server.url}{PATH}", content=content, headers={"content-type": media, **headers}, timeout=20)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"null", b"[]", b'"a"', b"1", b"{", b"\xff", b"{}", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"messages": NaN}', b'{"temperature": Infinity}', b'{"temperature": 1e999}', b"9" * 5000,
        b'{"n": ' + b"9" * 5000 + b"}", b'{"n": 1, "n": 1}', b'{"model": "\\ud800"}', b'{"\\udc00": 1}',
        b"\xef\xbb\xbf{}", json.dumps(ASK).encode("utf-16"), b'{"a": 1}{"b": 2}', b"{'a': 1}", b'{"a": 1,}',
        b'{"x": ' + b"[" * 70 + b"]" * 70 + b"}",
    ],
    ids=lambda body: ascii(body[:16]),
)  # fmt: skip
def test_hostile_json_is_refused(server: Served, body: bytes) -> None:
    before = time.process_time()
    reply = post(server, body)
    assert reply.status_code == 400 and time.process_time() - before < 1
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and len(error["message"]) < 500
    assert not re.search(r"0x[0-9a-f]{8,}|/[a-z]+/[a-z]+\.py", error["message"])


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "x", ""])
def test_bodies_are_json(server: Served, media: str) -> None:
    assert post(server, json.dumps(ASK).encode(), media).status_code == 415


def test_bodies_are_not_compressed(server: Served) -> None:
    assert post(server, b"x", **{"content-encoding": "gzip"}).status_code == 415
    assert post(server, json.dumps(ASK).encode(), "Application/JSON; charset=utf-8").status_code == 200


def test_large_bodies_are_refused_with_and_without_a_length(server: Served) -> None:
    large = json.dumps(ASK | {"user": "x" * (5 << 20)}).encode()
    assert post(server, large).status_code == 413

    def chunks():  # type: ignore[no-untyped-def]
        yield from (large[at : at + 65536] for at in range(0, len(large), 65536))

    reply = httpx2.post(f"{server.url}{PATH}", content=chunks(), headers={"content-type": "application/json"})
    assert reply.status_code == 413 and reply.json()["error"]["code"] == "body_too_large"
    long = ASK | {"user": "x" * (3 << 20)}
    assert post(server, json.dumps(long).encode()).status_code == 200


def test_who_sends_too_much_hears_why_though_nothing_is_read_meanwhile(server: Served) -> None:
    """A connection that is closed while something unread lies in it loses what was written."""
    body = b"x" * (5 << 20)
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 413") and b"body_too_large" in answer


def test_bodies_of_very_many_values_are_refused_before_they_are_read(server: Served) -> None:
    many = json.dumps(ASK | {"tools": [{} for _ in range(1 << 18)]}).encode()
    before = time.process_time()
    reply = post(server, many)
    assert reply.status_code == 413 and "commas and brackets" in reply.json()["error"]["message"]
    assert time.process_time() - before < 0.2


def test_long_bodies_are_parsed_one_after_another(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, at_once, seen = body._parse, 0, []

    def slow(*arguments: Any) -> Any:
        nonlocal at_once
        at_once += 1
        seen.append(at_once)
        time.sleep(0.01)
        at_once -= 1
        return parse(*arguments)

    async def asked() -> None:
        app, served = scripted_app(demo)
        served.otherwise = said("a")
        asking = [ask(app, "POST", PATH, ASK | {"user": "x" * body.LONG}) for _ in range(4)]
        assert {reply.status for reply in await asyncio.gather(*asking)} == {200}

    monkeypatch.setattr(body, "_parse", slow)
    run(asked)
    assert seen == [1, 1, 1, 1]


def test_bodies_together_are_bounded(demo: Model) -> None:
    half = json.dumps(ASK).encode() + b" " * 600
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1200\r\n\r\n"
    with serving(demo, Settings("demo", held_bytes=1000)) as small:
        with small.connect() as connection:
            connection.sendall(head.encode() + half)
            while not small.service.held:
                time.sleep(0.01)
            reply = post(small, half)
            assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["code"] == "bodies_too_large"
        with small.connect() as connection:  # what is refused is held no longer, though its rest is to come
            connection.sendall(head.encode() + half)
            while not small.service.held:
                time.sleep(0.01)
            connection.sendall(b" " * 400)
            while small.service.held:
                time.sleep(0.01)
            assert post(small, half).status_code == 200
        for stream in (True, False, True):
            assert post(small, json.dumps(ASK | {"stream": stream, "user": "x" * 700}).encode()).status_code == 200
        assert post(small, b"{" * 700).status_code == 400
        assert small.service.held == 0


def test_slow_bodies_time_out(impatient: Served) -> None:
    with impatient.connect() as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode())
        began = time.monotonic()
        connection.settimeout(0.05)
        answer = b""
        while not answer and time.monotonic() - began < 5:
            connection.send(b" ")
            with suppress(TimeoutError):
                answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ") and time.monotonic() - began > 0.35
        assert b"connection: close" in answer.lower()


def test_a_long_body_may_take_as_long_as_it_comes(demo: Model) -> None:
    """And who sends much at first has no more patience for that."""
    content = json.dumps(ASK | {"user": "x" * 150_000}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    with serving(demo, Settings("demo", body_seconds=0.3, body_rate=100_000)) as server:
        with server.connect() as connection:
            connection.sendall(head.encode())
            began = time.monotonic()
            for at in range(0, len(content), 10_000):
                time.sleep(0.05)
                connection.sendall(content[at : at + 10_000])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ") and time.monotonic() - began > 0.7
        with server.connect() as connection:
            connection.sendall(head.encode() + content[:140_000])
            began = time.monotonic()
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ") and 0.2 < time.monotonic() - began < 1.5
        assert server.service.held == 0


def test_a_client_that_leaves_in_the_middle_is_no_error(server: Served) -> None:
    with server.connect() as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        connection.sendall(head.encode())
    assert httpx2.get(f"{server.url}/health").status_code == 200


def test_what_nobody_reads_is_named_and_nothing_else(server: Served) -> None:
    fields = {f"field{n}": 1 for n in range(100)} | {"é": 1, "a\r\nset-cookie: b": 1}
    reply = post(server, json.dumps(ASK | fields).encode())
    assert reply.status_code == 200 and "set-cookie" not in reply.headers
    assert len(reply.headers["x-ernie-rt-ignored"]) < 500
    assert "x-ernie-rt-ignored" not in post(server, json.dumps(ASK).encode()).headers
