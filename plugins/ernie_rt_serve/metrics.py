"""What a server tells of itself: for Prometheus, by the names that vLLM's users know, and as JSON for the page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ernie_rt import AsyncModel
from ernie_rt.runtime.statistics import Stats
from ernie_rt_serve.answers import Answer

PREFIX: Final = "ernie_rt:"
SECONDS: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
BETWEEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
TOKENS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
REASONS: Final = {"stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}
REMEMBERED: Final = 1024
"""Of so many latest answers `/stats` knows the percentiles."""


class Metrics:
    """Told of answers while they run (`Observer`); what the engine counts itself is read when somebody asks."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._served: AsyncModel | None = None
        self._began = time.monotonic()
        self._first_seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._token_seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._first = self._histogram("time_to_first_token_seconds", "From a request to its first token", SECONDS)
        self._queue = self._histogram("request_queue_time_seconds", "From a request to its beginning", SECONDS)
        self._between = self._histogram("inter_token_latency_seconds", "From a token to the next", BETWEEN)
        self._each = self._histogram("time_per_output_token_seconds", "The same, an answer's mean", BETWEEN)
        self._whole = self._histogram("e2e_request_latency_seconds", "From a request to its last token", SECONDS)
        self._prompts = self._histogram("request_prompt_tokens", "Tokens of a prompt", TOKENS)
        self._answers = self._histogram("request_generation_tokens", "Tokens of an answer", TOKENS)
        self._ends = Counter(
            f"{PREFIX}request_success", "Answers that ended", ("model_name", "finished_reason"), registry=self.registry
        )
        self._refused = Counter(
            f"{PREFIX}requests_refused",
            "Requests that were turned away",
            ("model_name", "reason"),
            registry=self.registry,
        )
        self._pictures = Counter(
            f"{PREFIX}media_items", "Pictures and videos that were taken in", ("model_name", "kind"),
            registry=self.registry,
        )  # fmt: skip
        self.registry.register(self)

    def observe(self, served: AsyncModel) -> None:
        """From now on the engine's own numbers are those of `served`."""
        self._served = served

    def begun(self, seconds: float, queued: float) -> None:
        self._queue.observe(queued)
        self._first.observe(seconds)
        self._first_seconds.append(seconds)

    def went_on(self, tokens: int, seconds: float) -> None:
        for _ in range(tokens):
            self._between.observe(seconds / tokens)

    def ended(self, answer: Answer) -> None:
        self._ends.labels(self._model, REASONS[answer.finish or "cancelled"]).inc()
        self._whole.observe(answer.last - answer.began)
        self._prompts.observe(answer.stream.generation.prompt_tokens)
        self._answers.observe(answer.tokens)
        if answer.tokens > 1:
            seconds = (answer.last - answer.first) / (answer.tokens - 1)
            self._each.observe(seconds)
            self._token_seconds.append(seconds)

    def decoded(self, kind: str) -> None:
        self._pictures.labels(self._model, kind).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(self._model, reason).inc()

    def collect(self) -> Iterator[Metric]:
        """The engine's own numbers: what a registry asks its collectors for."""
        if self._served is None:
            return
        stats = self._served.stats()
        for name, text, now in (
            ("num_requests_running", "Sequences at work", stats.running),
            ("num_requests_waiting", "Sequences that wait", stats.waiting),
            ("kv_cache_usage_perc", "Share of the cache's rows that sequences at work hold", _usage(stats)),
        ):
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=("model_name",))
            gauge.add_metric((self._model,), now)
            yield gauge
        for name, text, count in (
            ("prompt_tokens", "Tokens of prompts", stats.prompt_tokens),
            ("generation_tokens", "Tokens of answers", stats.generated_tokens),
            ("prefix_cache_queries", "Tokens that were looked for in the cache", stats.prompt_tokens),
            ("prefix_cache_hits", "Tokens that were found in the cache", stats.cached_tokens),
            ("vision_patches", "Patches of pictures and videos that were encoded", stats.patches),
            ("mm_cache_hits", "Pictures and videos that were encoded already", stats.features_found),
            ("num_preemptions", "Sequences that gave their rows back, to be computed anew", stats.preemptions),
        ):
            counter = CounterMetricFamily(PREFIX + name, text, labels=("model_name",))
            counter.add_metric((self._model,), count)
            yield counter

    def prometheus(self) -> bytes:
        return generate_latest(self.registry)

    def summary(self, served: AsyncModel) -> dict[str, Any]:
        """What the page shows."""
        model, stats = served.model, served.stats()
        return {
            "model": self._model,
            "backend": model.choice.backend,
            "device": model.choice.device,
            "dtype": model.choice.dtype,
            "max_context": model.capacity,
            "requests_running": stats.running,
            "requests_waiting": stats.waiting,
            "cache_usage": _usage(stats),
            "prefix_cache_hit_rate": stats.cached_tokens / max(stats.prompt_tokens, 1),
            "prompt_tokens_total": stats.prompt_tokens,
            "generation_tokens_total": stats.generated_tokens,
            "preemptions_total": stats.preemptions,
            "uptime_seconds": time.monotonic() - self._began,
            "time_to_first_token_seconds": _percentiles(self._first_seconds),
            "time_per_output_token_seconds": _percentiles(self._token_seconds),
        }

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        labelled = Histogram(PREFIX + name, text, ("model_name",), buckets=tuple(buckets), registry=self.registry)
        return labelled.labels(self._model)


def _usage(stats: Stats) -> float:
    return stats.held_rows / max(stats.cache_rows, 1)


def _percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """Of no values, null."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{share}": ordered[round(last * share / 100)] if ordered else None for share in (50, 95)}
