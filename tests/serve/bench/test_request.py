"""What is measured of a request, against servers whose times are known."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest

from ernie_rt.errors import OptionError
from ernie_rt_serve.bench.connection import Client
from ernie_rt_serve.bench.prompts import Shape
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.request import Asker
from support.timed_server import Script, served

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def ask(url: str, tokens: int = 3, *, times: int = 1, endpoint: str = "chat", timeout: float = 10) -> list[Record]:
    """So many requests, one after another."""

    async def asked() -> list[Record]:
        shape = Shape(endpoint, "scripted", {})
        async with Client(url) as client:
            asker = Asker(client, shape.path, timeout)
            return [await asker.ask(shape.body("how are you", tokens)) for _ in range(times)]

    return asyncio.run(asked())


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_known_latencies_come_out(endpoint: str) -> None:
    with served(Script(first=0.1, each=0.02, cached=3).app()) as url:
        first, *others = ask(url, 6, times=5, endpoint=endpoint)
    assert first.ok and (first.prompt_tokens, first.output_tokens, first.cached_tokens) == (11, 6, 3)
    assert first.finish == "length" and len(others[0].arrivals) == 6 and others[0].sent >= first.ended
    # The event that names the role alone is no token. What else runs may hold us up, but not each time.
    for seconds, least, most in (
        ([each.ttft for each in others], 0.1, 0.15),
        ([each.tpot for each in others], 0.02, 0.03),
        ([each.e2e for each in others], 0.2, 0.3),
    ):
        assert least <= min(took for took in seconds if took is not None) < most, seconds


def test_connections_are_kept() -> None:
    script = Script()
    with served(script.app()) as url:
        assert all(record.ok for record in ask(url, times=3))
    assert len({headers["client"] for headers in script.headers}) == 1


def test_what_goes_wrong_is_part_of_the_record() -> None:
    script = Script(fails=(0,), cuts=(2,), usage=False)
    with served(script.app()) as url:
        failed, fine, cut = ask(url, times=3)
    assert (failed.status, failed.ok) == ("503", False) and "draining" in (failed.error or "")
    assert fine.ok and fine.output_tokens is None and len(fine.arrivals) == 3
    assert (cut.status, len(cut.arrivals), cut.output_tokens) == ("cut", 1, None)
    (gone,) = ask(url)
    assert gone.status == "unreachable"


def test_a_request_may_take_too_long() -> None:
    with served(Script(first=0.02, each=30).app()) as url:
        (late,) = ask(url, timeout=0.5)
    assert (late.status, len(late.arrivals)) == ("timeout", 1) and 0.5 <= late.e2e < 10


@contextmanager
def raw(*answers: bytes) -> Iterator[str]:
    """A server that says these bytes, one on each connection, and hangs up."""

    def run() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                asked = b""
                while not asked.endswith(b"}"):
                    asked += connection.recv(1 << 16)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def chunks(*events: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    whole = chunks(b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
    with raw(whole, whole) as url:
        records = ask(url, times=2)
    assert [record.ok for record in records] == [True, True]


@dataclass(frozen=True)
class Case:
    answer: bytes
    status: str
    error: str


CASES = {
    "nothing": Case(b"", "unreachable", "without an answer"),
    "no HTTP": Case(b"SSH-2.0-OpenSSH_9\r\n\r\n", "unreachable", "illegal status line"),
    "no stream": Case(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", "200", "no event stream"
    ),
    "no JSON": Case(chunks(b"data: hello\n\n"), "malformed", "none of OpenAI's"),
    "nested": Case(chunks(b'data: {"error": ' + b"[" * 99_999 + b"\n\n"), "malformed", "none of OpenAI's"),
    "not UTF-8": Case(chunks(b'data: {"error": "\xff"}\n\n'), "malformed", "none of OpenAI's"),
    "no end of a line": Case(chunks(*[b"data: " + b"a" * 65_000] * 17), "malformed", "it is longer than 1048576 bytes"),
    "another shape": Case(chunks(b'data: {"choices": 7}\n\n'), "malformed", "none of OpenAI's"),
    "an error": Case(
        chunks(b'data: {"error": {"message": "out of memory"}}\n\n'), "error in the stream", "out of memory"
    ),
    "no end": Case(chunks(b'data: {"choices": [{"text": "a"}]}\n\n'), "cut", "before the answer"),
    "half a chunk": Case(HEAD + b"20\r\ndata", "cut", "incomplete"),
}


@pytest.mark.parametrize("name", CASES)
def test_servers_that_misbehave(name: str) -> None:
    with raw(CASES[name].answer) as url:
        (record,) = ask(url)
    assert record.status == CASES[name].status and CASES[name].error in (record.error or "")


def test_lines_may_be_cut_anywhere() -> None:
    text = b'data: {"choices": [{"delta": {"reasoning_content": "\xe4\xbd\xa0"}}]}\r\n\r\n: remark\n\n' + (
        b'data:{"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"tool_calls"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    )
    with raw(chunks(*(text[i : i + 1] for i in range(len(text))))) as url:
        (record,) = ask(url)
    assert record.ok and len(record.arrivals) == 2 and (record.prompt_tokens, record.output_tokens) == (3, 2)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a?b"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(OptionError, match="--base-url is no address"):
        Client(url)


def test_addresses() -> None:
    assert Client("http://a").url == "http://a/v1" and Client("https://a:8443/api/v1/").url == "https://a:8443/api/v1"
    assert Client("https://a").port == 443 and Client("http://[::1]:8000").host == "::1"


def test_the_key_is_sent_and_not_recorded() -> None:
    script = Script()

    async def asked(url: str) -> Record:
        async with Client(url, "sk-secret") as client:
            return await Asker(client, "/completions", 10).ask(Shape("completions", "m", {}).body("a", 1))

    with served(script.app()) as url:
        record = asyncio.run(asked(url))
    assert script.headers[0]["authorization"] == "Bearer sk-secret" and b"secret" not in msgspec.json.encode(record)
