"""More requests than there is room for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from ernie_rt import Model
from ernie_rt_serve.app import make_app
from support.held_up import free, held_up, until
from support.serving import SETTINGS, ask, run

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
