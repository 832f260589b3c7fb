"""The client knows its own limits."""

from __future__ import annotations

import asyncio
import time

import pytest

from ernie_rt_serve.bench.ceiling import Ceiling, lateness, measure, warnings
from ernie_rt_serve.bench.figures import Spread, Summary, summarise
from ernie_rt_serve.bench.record import Record


def of(events: int) -> Summary:
    record = Record(sent=0.0, arrivals=[i / events for i in range(events)], ended=1.0, status="200")
    return summarise([record])


def test_it_is_measured() -> None:
    ceiling = asyncio.run(measure(events=20, concurrency=4, seconds=0.2))
    assert (ceiling.events, ceiling.concurrency) == (20, 4)
    assert ceiling.requests_per_second > 20
    assert ceiling.events_per_second / ceiling.requests_per_second == pytest.approx(20)


def test_what_comes_near_to_it_is_warned_of() -> None:
    ceiling = Ceiling(1000.0, 50.0, 20, 4)
    assert list(warnings(ceiling, of(400), None)) == []
    (warning,) = warnings(ceiling, of(600), None)
    assert "60% of the 1,000 events/s" in warning


def test_a_client_that_is_held_up_is_late() -> None:
    async def held_up(seconds: float) -> Spread | None:
        async with lateness() as late:
            for _ in range(5):
                await asyncio.sleep(0.011)
                time.sleep(seconds)
        return Spread.of(late)

    late = asyncio.run(held_up(0.05))
    assert late is not None and late.p99 > 0.03
    (warning,) = warnings(Ceiling(1000.0, 50.0, 20, 4), of(10), late)
    assert "ms late" in warning
