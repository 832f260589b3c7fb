"""Statistics, against NumPy and by hand."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import OptionError
from ernie_rt_serve.bench.figures import Spread, kept, parse_limits, poisson, summarise
from ernie_rt_serve.bench.record import Record


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300))
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread is not None and (spread.count, spread.max) == (len(values), max(values))
    found = [spread.mean, spread.p50, spread.p90, spread.p95, spread.p99]
    expected = [np.mean(values), *np.percentile(values, [50, 90, 95, 99])]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_nothing_has_no_spread() -> None:
    assert Spread.of([]) is None


def test_arrivals_are_those_of_poisson() -> None:
    """Gaps are exponential (Kolmogorov and Smirnov, p = 0.001), and counts of a second vary as much as their mean."""
    rate, count = 7.0, 20_000
    times = list(itertools.islice(poisson(rate, random.Random(5)), count))
    gaps = np.sort(np.diff([0.0, *times]))
    steps = np.arange(1, count + 1) / count
    expected = 1 - np.exp(-rate * gaps)
    assert max(np.abs(steps - expected).max(), np.abs(steps - 1 / count - expected).max()) < 1.95 / math.sqrt(count)
    counts = np.bincount(np.array(times).astype(int))[:-1]
    assert counts.mean() == pytest.approx(rate, rel=0.03) and counts.var() == pytest.approx(rate, rel=0.1)
    assert times == list(itertools.islice(poisson(rate, random.Random(5)), count))


def answered(sent: float, arrivals: list[float], ended: float, **fields: object) -> Record:
    counts = {"prompt_tokens": 10, "output_tokens": len(arrivals), "cached_tokens": 4, "status": "200"}
    return Record(sent=sent, arrivals=arrivals, ended=ended, **counts | fields)  # type: ignore[arg-type]


def test_one_request() -> None:
    record = answered(1.5, [2.0, 2.1, 2.4], 2.5, scheduled=1.0)
    assert record.ttft == 1.0 and record.e2e == 1.5  # from when it was due
    assert record.tpot == pytest.approx(0.2) and record.gaps == pytest.approx([0.1, 0.3])
    packed = answered(0.0, [1.0, 2.0], 2.0, output_tokens=11)  # several tokens in an event
    assert packed.tpot == pytest.approx(0.1) and packed.gaps == [1.0]
    assert answered(0.0, [1.0], 1.0).tpot is None
    assert answered(0.0, [1.0, 2.0], 2.0, output_tokens=None).tpot is None
    assert answered(0.0, [], 1.0).ttft is None


def test_a_summary() -> None:
    failed = Record(sent=2.0, ended=5.0, status="503", error="full")
    records = [answered(1.0, [2.0, 3.0], 3.0), answered(1.0, [1.5, 1.6], 2.0, prompt_tokens=30), failed]
    summary = summarise(records, {"ttft": 0.6})
    assert (summary.requests, summary.failed, summary.errors, summary.seconds) == (3, 1, {"503": 1}, 4.0)
    assert summary.requests_per_second == 0.5
    assert (summary.prompt_tokens_per_second, summary.output_tokens_per_second) == (10.0, 1.0)
    assert (summary.good_per_second, summary.good_share) == (0.25, 1 / 3)
    assert summary.cached_share == 0.2 and summary.uncounted == 0 and summary.events_per_second == 1.0
    ttft, itl = summary.latencies["ttft"], summary.latencies["itl"]
    assert ttft is not None and (ttft.count, ttft.mean) == (2, 0.75)
    assert itl is not None and itl.max == 1.0


def test_what_a_server_does_not_say_is_not_made_up() -> None:
    uncounted = answered(0.0, [1.0, 2.0], 2.0, prompt_tokens=None, output_tokens=None, cached_tokens=None)
    summary = summarise([uncounted])
    assert summary.uncounted == 1 and summary.latencies["tpot"] is None and summary.latencies["itl"] is not None
    for name in ("prompt_tokens_per_second", "output_tokens_per_second", "prompt_tokens", "cached_share"):
        assert getattr(summary, name) is None
    uncached = answered(0.0, [1.0], 2.0, cached_tokens=None)
    assert summarise([uncached]).cached_share is None
    assert summarise([uncached, answered(0.0, [1.0], 2.0)]).cached_share == 0.4  # of those that say it


def test_nothing_at_all() -> None:
    summary = summarise([])
    assert (summary.requests, summary.requests_per_second, summary.good_share) == (0, 0.0, None)


def test_limits() -> None:
    assert parse_limits("ttft=1, tpot=0.05") == {"ttft": 1.0, "tpot": 0.05}
    record = answered(0.0, [1.0, 1.2], 1.3)
    assert kept(record, {"ttft": 1.0, "tpot": 0.21, "e2e": 1.3}) and not kept(record, {"ttft": 1.0, "tpot": 0.19})
    assert kept(answered(0.0, [1.0], 1.0), {"tpot": 0.01})
    assert not kept(answered(0.0, [1.0], 1.0, error="cut"), {"ttft": 9.0})


@pytest.mark.parametrize(
    "text", ["", "tfft=1", "ttft", "ttft=", "ttft=fast", "ttft=0", "tpot=-1", "e2e=inf", "ttft=nan"]
)
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--slo"):
        parse_limits(text)
