"""Contenders in turns, round by round, with the bandwidth of memory before and after each measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final

from ernie_rt.planning.measuring import read_bandwidth
from ernie_rt_bench.others import Others
from ernie_rt_bench.workload import Contender, Looking, Measurement, Result, Workload

READ_BYTES: Final = 512 << 20

Bandwidth = Callable[[], float]
Say = Callable[[str], None]


def measure(
    contenders: Sequence[Contender],
    workload: Workload,
    say: Say = lambda what: None,
    *,
    by_op: bool = False,
    bandwidth: Bandwidth | None = None,
) -> tuple[Result, ...]:
    """Start all contenders, let them take turns, each round beginning with another one, and end them. `say` is told
    what is done now."""
    bandwidth = bandwidth or partial(read_bandwidth, workload.threads, READ_BYTES)
    results = [Result(contender.name) for contender in contenders]
    with ExitStack() as stack:
        for contender, result in zip(contenders, results, strict=True):
            say(f"loading {contender.name}")
            stack.enter_context(closing(contender))
            result.facts = contender.start()
            result.name = contender.name
        pairs = list(zip(contenders, results, strict=True))
        for number in range(workload.rounds):
            first = number % len(pairs)
            for contender, result in pairs[first:] + pairs[:first]:
                say(f"round {number + 1} of {workload.rounds}: {contender.name}")
                for context in workload.contexts:
                    result.measurements += _turn(contender, context, workload.new, number, bandwidth)
                if workload.picture is not None and isinstance(contender, Looking):
                    result.measurements += _look(contender, workload, workload.picture, number, bandwidth)
        for contender, result in pairs:
            result.peak_bytes = contender.peak_bytes
            if by_op:
                say(f"by op: {contender.name}")
                result.steps = contender.by_op(workload.contexts[0])
    return tuple(results)


def _look(
    contender: Looking, workload: Workload, size: tuple[int, int], seed: int, bandwidth: Bandwidth
) -> list[Measurement]:
    """A picture by itself, and in front of a prompt."""
    before, others, context = bandwidth(), Others(contender.cpu_seconds), min(workload.contexts)
    tower, reading = contender.look(size, context, seed)
    beside, after = others.cores(contender.cpu_seconds), bandwidth()
    tokens = workload.picture_tokens
    return [
        Measurement("tower", tokens, tokens, tower, before, after, beside),
        Measurement("picture", tokens + context, tokens + context, reading, before, after, beside),
    ]


def _turn(contender: Contender, context: int, new: int, seed: int, bandwidth: Bandwidth) -> list[Measurement]:
    """A prompt and what follows it."""
    before = bandwidth()
    others = Others(contender.cpu_seconds)
    reading = contender.prefill(context, new, seed)
    beside_reading = others.cores(contender.cpu_seconds)
    between = bandwidth()
    others = Others(contender.cpu_seconds)
    writing = contender.decode()
    beside_writing = others.cores(contender.cpu_seconds)
    return [
        Measurement("prefill", context, context, reading, before, between, beside_reading),
        Measurement("decode", context, new, writing, between, bandwidth(), beside_writing),
    ]
