"""More requests than there is room for."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import httpx2
import pytest

from ernie_rt import Model
from ernie_rt_serve.app import make_app
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
            asked = [asyncio.create_task(ask(app, "POST", PATH, talk(n, stream=n % 2 == 0))) for n in range(60)]
            await until(lambda: sum(task.done() for task in asked) == 60 - PLACES - QUEUE)
            assert (await ask(app, "GET", "/health")).status == 200
            gate.open.set()
            replies = await asyncio.gather(*asked)
        statuses = Counter(reply.status for reply in replies)
        assert statuses == {200: PLACES + QUEUE, 429: 60 - PLACES - QUEUE}
        for reply in replies:
            if reply.status == 429:
                assert int(reply.headers["retry-after"]) >= 1
                assert (reply.error["type"], reply.error["code"]) == ("rate_limit_error", "queue_full")

    run(body)
    assert free(demo)


def test_who_waits_too_long_is_told_so(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(demo, monkeypatch, queue_seconds=0.2) as (served, gate):
            app = make_app(served, SETTINGS)
            asked = [asyncio.create_task(ask(app, "POST", PATH, talk(n, stream=True))) for n in range(PLACES + 2)]
            await until(lambda: served.stats().running + served.stats().waiting == len(asked))
            gate.once.release()
            began = time.monotonic()
            await until(lambda: sum(task.done() for task in asked) >= 2)
            assert time.monotonic() - began < 2
            gate.open.set()
            replies = await asyncio.gather(*asked)
        late = [reply for reply in replies if reply.status == 503]
        assert len(late) == 2 and all(reply.error["code"] == "queue_timeout" for reply in late)

    run(body)


@pytest.mark.long
def test_five_hundred_requests_at_once(demo: Model) -> None:
    async def body(url: str) -> None:
        limits = httpx2.Limits(max_connections=500)
        async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=120) as client:

            async def post(number: int) -> tuple[int, float, str | None]:
                began = time.monotonic()
                reply = await client.post(PATH, json=talk(number % 50))
                return reply.status_code, time.monotonic() - began, reply.headers.get("retry-after")

            told = await asyncio.gather(*(post(number) for number in range(500)))
        statuses = Counter(status for status, _, _ in told)
        assert set(statuses) == {200, 429} and statuses[200] >= 36
        assert all(retry is not None and int(retry) >= 1 for status, _, retry in told if status == 429)

    with serving(demo, max_queue=32) as server:
        run(lambda: body(server.url))
    assert free(demo)


@pytest.mark.long
def test_streams_that_are_cut_leave_nothing_and_change_nothing(demo: Model) -> None:
    alone = {n: demo.chat(talk(n)["messages"], max_new_tokens=40, ignore_eos=True).text for n in range(20)}  # type: ignore[arg-type]

    async def body(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, limits=httpx2.Limits(max_connections=200), timeout=120) as client:

            async def read(number: int, cut: int | None) -> str | None:
                wish = talk(number % 20, stream=True, max_tokens=40, ignore_eos=True)
                text, chunks = "", 0
                async with client.stream("POST", PATH, json=wish) as reply:
                    async for line in reply.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        chunks += 1
                        if cut is not None and chunks > cut:
                            return None
                        text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                return text

            for _ in range(3):
                told = await asyncio.gather(*(read(n, n % 17 if n % 10 < 3 else None) for n in range(200)))
                assert all(text is None or text == alone[n % 20] for n, text in enumerate(told))
                began = time.monotonic()
                await until(lambda: free(demo))
                assert time.monotonic() - began < 1

    with serving(demo) as server:
        run(lambda: body(server.url))
