"""Closed loop keeps so many running; open loop forgives no delay."""

from __future__ import annotations

import asyncio
import random
from itertools import repeat

import pytest

from ernie_rt.errors import OptionError
from ernie_rt_serve.bench.connection import Client
from ernie_rt_serve.bench.load import Extent, Load, closed_loop, open_loop, parse_loads
from ernie_rt_serve.bench.prompts import Shape
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.bench.request import Asker
from support.timed_server import Script, served


def drive(script: Script, load: Load, extent: Extent, tokens: int = 2) -> list[Record]:
    records: list[Record] = []

    async def driven(url: str) -> None:
        shape = Shape("chat", "scripted", {})
        bodies = repeat(shape.body("a", tokens))
        async with Client(url) as client:
            asker = Asker(client, shape.path, 10)
            if load.concurrency is not None:
                await closed_loop(asker, bodies, load.concurrency, extent, records.append)
            else:
                assert load.rate is not None
                await open_loop(asker, bodies, load.rate, random.Random(3), extent, records.append)

    with served(script.app()) as url:
        asyncio.run(driven(url))
    assert all(record.ok for record in records)
    return records


def test_closed_loop_runs_so_many_at_once() -> None:
    script = Script(first=0.02, each=0.02)
    records = drive(script, Load(concurrency=3), Extent(requests=9))
    assert len(records) == 9 and script.most == 3
    in_flight = [sum(other.sent <= record.sent < other.ended for other in records) for record in records]
    assert max(in_flight) == 3 and len({headers["client"] for headers in script.headers}) == 3


def test_a_phase_of_so_many_seconds_ends_with_what_runs() -> None:
    records = drive(Script(first=0.05), Load(concurrency=2), Extent(seconds=0.12))
    late = sorted(record.ended for record in records if record.ended >= 0.12)
    assert len(late) == 2, "each of both went on until then, and what ran ended well"
    assert max(record.sent for record in records) < late[0], "and nothing began when it was over"


def test_open_loop_waits_for_no_answer_and_counts_from_when_a_request_was_due() -> None:
    """A server that takes one request in 20 ms, asked every 5 ms: each waits longer, and that is seen."""
    script = Script(first=0.02, slots=1)
    records = drive(script, Load(rate=200), Extent(requests=20), tokens=1)
    assert len(script.bodies) == 20 and all(record.scheduled is not None for record in records)
    last = max(records, key=lambda record: record.origin)
    assert last.scheduled is not None and last.scheduled < 0.2
    assert last.ttft is not None and last.ttft > 0.25
    assert last.ttft == last.arrivals[0] - last.scheduled


def test_a_client_that_is_late_is_no_excuse() -> None:
    async def asked(url: str) -> Record:
        async with Client(url) as client:
            asker = Asker(client, "/completions", 10)
            await asyncio.sleep(0.1)
            return await asker.ask(Shape("completions", "m", {}).body("a", 1), scheduled=0.0)

    with served(Script().app()) as url:
        record = asyncio.run(asked(url))
    assert record.ttft is not None and record.ttft >= 0.1 and record.sent >= 0.1


def test_loads() -> None:
    assert parse_loads(None, None) == (Load(concurrency=1),)
    assert parse_loads("1,8, 32", None) == (Load(concurrency=1), Load(concurrency=8), Load(concurrency=32))
    assert list(map(str, parse_loads(None, "0.5,2"))) == ["0.5 requests/s", "2 requests/s"]


@pytest.mark.parametrize(
    ("concurrency", "rate"), [("0", None), ("1,", None), ("2.5", None), (None, "nan"), (None, "-1"), ("1", "1")]
)
def test_loads_that_are_none(concurrency: str | None, rate: str | None) -> None:
    with pytest.raises(OptionError, match=r"--concurrency|--rate"):
        parse_loads(concurrency, rate)
