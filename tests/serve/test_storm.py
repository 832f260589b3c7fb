"""Malformed bodies, thousands of them: each is answered, none with a 500, and the server lives on."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from ernie_rt import Model
from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.openapi import describe
from support.bodies import Bodies
from support.serving import ask, run, said, scripted_app

ROUTES = [entry for entry in ENTRIES if entry.body is not None]
LEAK = re.compile(rb"0x[0-9a-f]{8,}|/[a-z_]+/[a-z_]+\.[a-z]+|Traceback|grams are in")
ALLOWED = {200, 400, 404}


@pytest.mark.parametrize("bodies", [500, pytest.param(10_000 * len(ROUTES), marks=pytest.mark.long)])
def test_no_body_is_answered_with_a_500(demo: Model, bodies: int) -> None:
    async def body() -> None:
        document = describe(ENTRIES)
        drawn = Bodies(document, seed=1)
        app, served = scripted_app(demo)
        served.otherwise = said("a", "b")
        statuses: Counter[int] = Counter()
        seconds = []
        for number in range(bodies):
            entry = ROUTES[number % len(ROUTES)]
            schema = document["paths"][entry.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            data = drawn.body(schema)
            began = time.perf_counter()
            reply = await ask(app, "POST", entry.path, data)
            seconds.append(time.perf_counter() - began)
            statuses[reply.status] += 1
            assert reply.status in ALLOWED, (entry.path, data, reply.body)
            if reply.status != 200:
                assert reply.json["error"]["message"], (entry.path, data)
                assert not LEAK.search(reply.body), (data, reply.body)
        assert statuses[200] > bodies // 20 and statuses[400] > bodies // 3, statuses
        assert (await ask(app, "GET", "/health")).status == 200
        assert sorted(seconds)[len(seconds) * 99 // 100] < 0.5

    run(body, 300)
