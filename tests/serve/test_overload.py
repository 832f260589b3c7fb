"""More requests than there is room for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from starlette.applications import Starlette

from ernie_rt import Model
from ernie_rt.errors import OverloadError
from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import make_app
from ernie_rt_serve.settings import Settings
from support.held_up import free, held_up, until
from support.serving import SETTINGS, ask, run, serving

PATH = "/v1/chat/completions"
PLACES, QUEUE = 4, 8


def talk(number: int, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"How many grams are in {number} kilograms?"}], **fields}


def test_who_finds_no_room_is_told_so_at_once(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(demo, monkeypatch, max_queue=QUEUE) as (served, gate):
            app = make_app(served, SETTINGS)
            prepared: list[object] = []
            prepare = demo.prepare_chat
            monkeypatch.setattr(demo, "prepare_chat", lambda *given: prepared.append(given) or prepare(*given))
            asked = [asyncio.create_task(ask(app, "POST", PATH, talk(n, stream=n % 2 == 0))) for n in range(60)]
            await until(lambda: sum(task.done() for task in asked) == 60 - PLACES - QUEUE)
            assert (await ask(app, "GET", "/health")).status == 200
            gate.open.set()
            replies = await asyncio.gather(*asked)
        assert len(prepared) == PLACES + QUEUE, "nobody prepares what is refused"
        statuses = Counter(reply.status for reply in replies)
        assert statuses == {200: PLACES + QUEUE, 429: 60 - PLACES - QUEUE}
        for reply in replies:
            if reply.status == 429:
                assert int(reply.headers["retry-after"]) >= 1
                assert (reply.error["type"], reply.error["code"]) == ("rate_limit_error", "queue_full")

    run(body)
    assert free(demo)


ASKED = {
    PATH: "rate_limit_error", "/v1/completions": "rate_limit_error", "/v1/responses": "rate_limit_error",
    "/v1/messages": "overloaded_error",
}  # fmt: skip


@asynccontextmanager
async def full(demo: Model, monkeypatch: pytest.MonkeyPatch, settings: Settings = SETTINGS) -> AsyncIterator[Starlette]:
    """An application of which every place is taken until the end of the block."""
    async with held_up(demo, monkeypatch, max_queue=0) as (served, gate):
        app = make_app(served, settings)
        asked = [asyncio.create_task(ask(app, "POST", PATH, talk(number))) for number in range(PLACES)]
        await until(lambda: served.stats().running + served.stats().waiting == PLACES)
        try:
            yield app
        finally:
            gate.open.set()
            await asyncio.gather(*asked)
        assert (await ask(app, "POST", PATH, talk(1, max_tokens=1))).status == 200, "there is room again"


def test_a_refusal_looks_into_no_body_and_is_spelled_as_its_protocol_has_it(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with full(demo, monkeypatch) as app:
            for path, kind in ASKED.items():
                reply = await ask(app, "POST", path, b"{" * 5000)
                assert (reply.status, reply.error["type"]) == (429, kind) and int(reply.headers["retry-after"]) >= 1
            assert "ernie_rt:requests_refused_total" in (metrics := (await ask(app, "GET", "/metrics")).body.decode())
            assert f'reason="full"}} {len(ASKED)}.0' in metrics
            assert (await ask(app, "GET", PATH)).status == 405
            assert (await ask(app, "POST", "/tokenize", {"prompt": "x"})).status == 200
        assert app.state.service.held == 0

    run(body)


def test_without_a_key_nobody_hears_whether_there_is_room(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(demo, monkeypatch, max_queue=0) as (served, _):
            served.check_room = lambda coming=0: pytest.fail("nobody asks")  # type: ignore[method-assign]
            app = make_app(served, replace(SETTINGS, keys=Keys.of(["sk-a"])))
            assert (await ask(app, "POST", PATH, talk(1))).status == 401

    run(body)


def test_who_is_refused_hears_why_whatever_is_on_its_way(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed while something unread lies in it loses what was written."""
    size = 3 << 20

    def head(*more: str, length: int = size) -> bytes:
        lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*lines, *more, "", ""]).encode()

    with serving(demo, Settings("demo", body_seconds=0.3), max_queue=0) as server:
        monkeypatch.setattr(server.service.served, "check_room", refuse)
        for _ in range(5):
            with server.connect() as connection:
                connection.sendall(head("Connection: close") + b"x" * size)
                answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 429") and b"queue_full" in answer
        with server.connect() as connection:
            answers = connection.makefile("rb")
            for _ in range(2):  # on one connection
                connection.sendall(head())
                connection.sendall(b"x" * size)
                assert answers.readline().startswith(b"HTTP/1.1 429")
                headers = dict(line.lower().split(b": ") for line in iter(answers.readline, b"\r\n"))
                assert b"connection" not in headers and b"queue_full" in answers.read(int(headers[b"content-length"]))
        with server.connect() as connection:
            connection.sendall(head() + b"x")  # and no more
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 429") and b"connection: close" in answer.lower()
        with server.connect() as connection:
            connection.sendall(head() + b"x")  # and leaves
        assert httpx2.get(f"{server.url}/health").status_code == 200


def refuse(coming: int = 0) -> None:
    raise OverloadError("too many requests wait")


def test_who_waits_too_long_is_told_so(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(demo, monkeypatch, queue_seconds=0.2) as (served, gate):
            app = make_app(served, SETTINGS)
            asked = [asyncio.create_task(ask(app, "POST", PATH, talk(n, stream=True))) for n in range(PLACES + 2)]
            await until(lambda: served.stats().running + served.stats().waiting == len(asked))
            gate.once.release()
            await until(lambda: sum(task.done() for task in asked) >= 2)
            gate.open.set()
            replies = await asyncio.gather(*asked)
        late = [reply for reply in replies if reply.status == 503]
        assert len(late) == 2 and all(reply.error["code"] == "queue_timeout" for reply in late)

    run(body)
