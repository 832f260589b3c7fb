"""Statistics of requests: percentiles, throughput, goodput."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ernie_rt.display import did_you_mean, shown
from ernie_rt.errors import OptionError
from ernie_rt_serve.bench.record import Record

LATENCIES: Final[Mapping[str, str]] = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "between tokens",
    "e2e": "end to end",
}
PROMISES: Final = ("ttft", "tpot", "e2e")
"""The latencies that a request has one of, so that it can keep a limit or not."""


class Spread(msgspec.Struct, frozen=True):
    """How values are spread; percentiles lie between two values in proportion, as NumPy's do."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no values."""
        if not values:
            return None
        # Of a single value, Python 3.11 makes no quantiles.
        at = statistics.quantiles(values if len(values) > 1 else [*values, *values], n=100, method="inclusive")
        return cls(len(values), statistics.fmean(values), at[49], at[89], at[94], at[98], max(values))


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a phase came to. Latencies and token counts are of the requests that succeeded.

    Rates are over `seconds`, from the first request until the last answer has ended. What a server does not report is
    None, and `uncounted` are the answers without `usage`.
    """

    requests: int
    failed: int
    errors: dict[str, int]
    seconds: float
    latencies: dict[str, Spread | None]
    requests_per_second: float
    prompt_tokens_per_second: float | None
    output_tokens_per_second: float | None
    prompt_tokens: Spread | None
    output_tokens: Spread | None
    cached_share: float | None
    """Of the prompt tokens, those that the server says it had in its cache."""
    good_per_second: float | None
    """Requests that kept every limit: goodput."""
    good_share: float | None
    uncounted: int
    events_per_second: float


def summarise(records: Sequence[Record], limits: Mapping[str, float] | None = None) -> Summary:
    done = [record for record in records if record.ok]
    counted = [record for record in done if record.output_tokens is not None and record.prompt_tokens is not None]
    cached = [record for record in counted if record.cached_tokens is not None]
    begin = min((record.origin for record in records), default=0.0)
    seconds = max((record.ended for record in records), default=0.0) - begin
    prompts = [record.prompt_tokens or 0 for record in counted]
    outputs = [record.output_tokens or 0 for record in counted]
    of_cached = sum(record.prompt_tokens or 0 for record in cached)
    good = sum(kept(record, limits) for record in done) if limits else None

    def rate(count: float) -> float:
        return count / seconds if seconds > 0 else 0.0

    return Summary(
        requests=len(records),
        failed=len(records) - len(done),
        errors=dict(Counter(record.status for record in records if not record.ok).most_common()),
        seconds=seconds,
        latencies={
            "ttft": Spread.of([record.ttft for record in done if record.ttft is not None]),
            "tpot": Spread.of([record.tpot for record in done if record.tpot is not None]),
            "itl": Spread.of([gap for record in done for gap in record.gaps]),
            "e2e": Spread.of([record.e2e for record in done]),
        },
        requests_per_second=rate(len(done)),
        prompt_tokens_per_second=rate(sum(prompts)) if counted else None,
        output_tokens_per_second=rate(sum(outputs)) if counted else None,
        prompt_tokens=Spread.of(prompts),
        output_tokens=Spread.of(outputs),
        cached_share=sum(record.cached_tokens or 0 for record in cached) / of_cached if of_cached else None,
        good_per_second=None if good is None else rate(good),
        good_share=None if good is None or not records else good / len(records),
        uncounted=len(done) - len(counted),
        events_per_second=rate(sum(len(record.arrivals) for record in records)),
    )


def kept(record: Record, limits: Mapping[str, float]) -> bool:
    """Whether a request succeeded within limits. An answer of one token has no time per token that could exceed one."""
    values = {name: getattr(record, name) for name in limits}
    return record.ok and all(value is None or value <= limits[name] for name, value in values.items())


def parse_limits(text: str) -> dict[str, float]:
    """`ttft=1,tpot=0.05`, in seconds; OptionError otherwise."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in PROMISES:
            hint = did_you_mean(name, PROMISES) or None
            raise OptionError("--slo names no latency", expected=" or ".join(PROMISES), found=shown(name), hint=hint)
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = 0.0
        if not 0 < limits[name] < float("inf"):
            raise OptionError(f"--slo {name} is no time", expected="seconds, such as 0.05", found=shown(value))
    return limits


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """When requests arrive that know nothing of each other, `rate` a second on average: seconds, without end."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at
