"""How fast does it decode? Whole steps at several batches beside what memory allows, and each kernel of a step."""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ernie_rt.contract import Limits
from ernie_rt.graph.cost import EXPERTS
from ernie_rt_cudagraph.launch import Launch
from ernie_rt_cudagraph.planner import buckets
from gpu_parts.card import Card
from gpu_parts.ceilings import Ceilings, measure, share_of
from gpu_parts.compiling import Wanted, compile_kernels
from gpu_parts.report import Measured, Report
from gpu_parts.stepping import Loaded, Sequences, run_ahead
from gpu_parts.traffic import decode_bytes, moe_nodes, num_experts
from gpu_parts.weights import published

MODELS: Final = ("0.3B", "21B-A3B")
BATCHES: Final = (1, 2, 4, 8, 32, 128)
LOOKED_INTO: Final = (1, 32)
CONTEXT: Final = 512
STEPS: Final = 100
COUNTED: Final = 5
"""Steps, of fresh tokens each, whose experts are counted."""
SHOWN: Final = 14


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    ceilings = measure(card, report)
    batches, inside = ((2,), (2,)) if card.small else (BATCHES, LOOKED_INTO)
    for name in given.model or MODELS:
        with report.attempt(f"decoding {name}"):
            decode(card, report, ceilings, name, batches, inside)


def decode(
    card: Card, report: Report, ceilings: Ceilings, name: str, batches: tuple[int, ...], inside: tuple[int, ...]
) -> None:
    config = published(name, card)
    context, steps, counted = (20, 1, 1) if card.small else (CONTEXT, STEPS, COUNTED)
    compile_kernels(card, report, [Wanted(config, buckets(batches[-1]), "bfloat16", card.pdl)])
    began = time.perf_counter()
    limits = Limits(2 * context, batches[-1])
    loaded = Loaded(card, config, limits)
    card.wait()
    report.note(f"{name} loaded in {time.perf_counter() - began:.1f} s")
    for note in loaded.executable.memory().notes:
        report.note(note)
    table = report.table(
        f"Decoding {name} in bfloat16 after {context} tokens, fresh random tokens each step",
        "sequences", "experts", "GB a step", "ms a step", "ms replayed", "tokens/s", "TB/s", "% of read", "% of sheet",
    )  # fmt: skip
    graph = loaded.build.graph
    for count in batches:
        if not report.has(8, f"{name}, {count} sequences"):
            continue
        with report.attempt(f"decoding {name}, {count} sequences"):
            sequences = Sequences(loaded.executable, config, [context] * count)
            seen = [loaded.chosen(sequences.decode()) for _ in range(counted)]
            distinct = [sum(layer) / counted for layer in zip(*seen, strict=True)]
            run_ahead(loaded, [sequences.decode() for _ in range(steps // 10)])
            ahead = [sequences.decode() for _ in range(steps)]
            began = time.perf_counter()
            run_ahead(loaded, ahead)
            seconds = (time.perf_counter() - began) / steps
            replayed = card.seconds(loaded.replay(count), runs=10)
            nbytes = decode_bytes(graph, count, context + counted + steps // 2, distinct)
            floor, promised = nbytes / ceilings.read, card.sheet.bandwidth if card.sheet else None
            table.row(
                str(count), sum(distinct) / len(distinct) if distinct else 0, nbytes / 1e9, Measured(1e3 * seconds),
                Measured(1e3 * replayed), Measured(count / seconds), Measured(nbytes / seconds / 1e12),
                Measured(100 * floor / seconds), share_of(nbytes / seconds, promised),
            )  # fmt: skip
            if count in inside and report.has(10, f"{name}, kernels at {count} sequences"):
                look_inside(card, report, ceilings, loaded, name, count, context, distinct, replayed)
    loaded.close()


@dataclass(frozen=True, slots=True)
class Kind:
    """Launches of a step that differ in their tensors alone."""

    kernel: str
    weight: str
    launches: list[Launch]
    nbytes: float
    """What one of them reads at least, of weights and cache."""


def look_inside(
    card: Card, report: Report, ceilings: Ceilings, loaded: Loaded, name: str, count: int, context: int,
    distinct: list[float], replayed: float,
) -> None:  # fmt: skip
    """Each kind of launch of a step in a graph of its own, all its layers one after the other; then the profiler."""
    table = report.table(
        f"Kernels of a step of {name}, {count} sequences, in graphs of their own",
        f"{'kernel':22}", f"{'weight':24}", "launches", "us each", "MB each", "floor, us", "% of read", "% of step",
    )  # fmt: skip
    total = 0.0
    for kind in kinds(loaded, loaded.launches(count), count, context, distinct):
        with report.attempt(f"{kind.kernel} {kind.weight}"), torch.inference_mode():
            work = card.recorder().record(partial(start_all, kind.launches))
            seconds = card.seconds(work, runs=5) / len(kind.launches)
            total += seconds * len(kind.launches)
            floor = kind.nbytes / ceilings.read
            table.row(
                kind.kernel, kind.weight, len(kind.launches), Measured(1e6 * seconds), kind.nbytes / 1e6,
                Measured(1e6 * floor), Measured(100 * floor / seconds),
                Measured(100 * seconds * len(kind.launches) / replayed),
            )  # fmt: skip
    report.note(f"their sum is {shown_ms(card, total)} ms, the whole step replayed {shown_ms(card, replayed)} ms")
    with report.attempt("the profiler"):
        profiled(card, report, loaded, name, count)


def shown_ms(card: Card, seconds: float) -> str:
    return "?" if card.dry else f"{1e3 * seconds:.3f}"


def start_all(launches: list[Launch]) -> None:
    for launch in launches:
        launch.start()


def kinds(loaded: Loaded, launches: list[Launch], count: int, context: int, distinct: list[float]) -> list[Kind]:
    """In the order in which they come first."""
    found: dict[tuple[object, ...], list[Launch]] = defaultdict(list)
    for launch in launches:
        arguments = (tuple(v.shape) if isinstance(v, Tensor) else v for v in launch.arguments.values())
        found[(launch.kernel, launch.grid, launch.num_warps, *arguments)].append(launch)
    nodes = moe_nodes(loaded.build.graph)
    share = sum(distinct) / len(distinct) / num_experts(nodes[0]) if nodes else 0.0
    cache = {tensor.untyped_storage().data_ptr(): tensor for tensor in loaded.cache_tensors()}
    made = []
    for alike in found.values():
        tensors = {v.untyped_storage().data_ptr(): v for v in alike[0].arguments.values() if isinstance(v, Tensor)}
        read = {}
        for weight in (loaded.source.weights[place] for place in tensors if place in loaded.source.weights):
            name = re.sub(r"^layers\.\d+\.(mlp\.)?", "", weight.name)
            read[name] = weight.nbytes() * (share if name in EXPERTS_STORED else 1)
        if not read:  # attention reads what is in the cache
            rows = [cache[place][0] for place in tensors if place in cache]
            read = {"cache": count * context * sum(row.nbytes for row in rows)} if rows else {"": 0.0}
        label = max(read, key=lambda name: read[name])
        made.append(Kind(alike[0].kernel.__name__, label, alike, sum(read.values())))
    return made


EXPERTS_STORED: Final = frozenset(name.replace("experts_", "experts.") for name in EXPERTS)
"""The names of experts' weights in a layer's MLP."""


def profiled(card: Card, report: Report, loaded: Loaded, name: str, count: int) -> None:
    """What PyTorch's profiler says of replayed steps: PyTorch's own kernels, too."""
    replay, steps = loaded.replay(count), 1 if card.small else 3
    activity = ProfilerActivity.CPU if card.dry else ProfilerActivity.CUDA
    with torch.inference_mode(), profile(activities=[activity]) as profiler:
        for _ in range(steps):
            replay()
        card.wait()
    table = report.table(
        f"A replayed step of {name}, {count} sequences, by the profiler", f"{'kernel':60}", "launches", "us each", "us"
    )
    events = sorted(profiler.key_averages(), key=lambda event: -time_of(card, event))
    for event in events[:SHOWN]:
        us = time_of(card, event)
        table.row(event.key[:60], event.count // steps, Measured(us / event.count), Measured(us / steps))


def time_of(card: Card, event: object) -> float:
    """Microseconds of all calls."""
    return float(getattr(event, "self_cpu_time_total" if card.dry else "self_device_time_total"))
