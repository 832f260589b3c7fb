"""Malformed bodies, thousands of them: each is answered, none with a 500, and the server lives on."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from starlette.applications import Starlette

from ernie_rt import Model
from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.openapi import describe
from support.bodies import Bodies
from support.picture_bodies import Pictures
from support.pictures import kept_workers, seeing_app, seeing_model
from support.serving import ask, run, said, scripted_app

ROUTES = [entry for entry in ENTRIES if entry.body is not None]
LEAK = re.compile(rb"0x[0-9a-f]{8,}|/[a-z_]+/[a-z_]+\.[a-z]+|Traceback|grams are in")
ALLOWED = {200, 400, 404}


@pytest.mark.parametrize("bodies", [500, pytest.param(10_000 * len(ROUTES), marks=pytest.mark.long)])
def test_no_body_is_answered_with_a_500(demo: Model, bodies: int) -> None:
    async def body() -> None:
        app, served = scripted_app(demo)
        served.otherwise = said("a", "b")
        await storm(app, Drawn(seed=1), bodies)

    run(body, 300)


@pytest.mark.parametrize("bodies", [150, pytest.param(10_000, marks=pytest.mark.long)])
def test_nor_one_with_pictures(tmp_path: Path, bodies: int) -> None:
    async def body(model: Model) -> None:
        app, served = seeing_app(model)
        served.otherwise = said("a", "b")
        await storm(app, Pictures(random.Random(1)), bodies)
        prompts = [asked.prompt for asked in served.asked]
        assert sum(isinstance(each, ChatPrompt) and bool(each.items) for each in prompts) > bodies // 20
        assert app.state.service.held == 0

    with kept_workers(), seeing_model(tmp_path) as model:
        run(lambda: body(model), 300)


class Drawn:
    """Bodies made of the server's description."""

    paths = tuple(entry.path for entry in ROUTES)

    def __init__(self, seed: int) -> None:
        self._document = describe(ENTRIES)
        self._bodies = Bodies(self._document, random.Random(seed))

    def body(self, path: str) -> bytes:
        content = self._document["paths"][path]["post"]["requestBody"]["content"]
        return self._bodies.body(content["application/json"]["schema"])


async def storm(app: Starlette, drawn: Drawn | Pictures, bodies: int) -> None:
    statuses: Counter[int] = Counter()
    seconds = []
    for number in range(bodies):
        path = drawn.paths[number % len(drawn.paths)]
        data = drawn.body(path)
        began = time.perf_counter()
        reply = await ask(app, "POST", path, data)
        seconds.append(time.perf_counter() - began)
        statuses[reply.status] += 1
        assert reply.status in ALLOWED, (path, data, reply.body)
        if reply.status != 200:
            assert reply.json["error"]["message"], (path, data)
            assert ("type" in reply.json) == path.startswith("/v1/messages"), (path, data, reply.body)
            assert not LEAK.search(reply.body), (data, reply.body)
    assert statuses[200] > bodies // 20 and statuses[400] > bodies // 3, statuses
    assert (await ask(app, "GET", "/health")).status == 200
    assert sorted(seconds)[len(seconds) * 99 // 100] < 0.5
