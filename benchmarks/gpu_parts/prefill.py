"""How fast are prompts? Steps of many tokens beside what products can be had at."""

from __future__ import annotations

import argparse
import time
from typing import Final

from ernie_rt.contract import Limits
from gpu_parts.card import Card
from gpu_parts.ceilings import Ceilings, measure
from gpu_parts.report import Measured, Report
from gpu_parts.stepping import Loaded, Sequences, run_ahead
from gpu_parts.traffic import prompt_flops
from gpu_parts.weights import published

MODELS: Final = ("0.3B", "21B-A3B")
PROMPTS: Final = ((512, 512), (4096, 4096), (32768, 32768), (32768, 4096))
"""Tokens of a prompt, and how many enter one step."""
SMALL_PROMPTS: Final = ((24, 24), (24, 16))
RUNS: Final = 3


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    ceilings = measure(card, report)
    for name in given.model or MODELS:
        with report.attempt(f"prompts of {name}"):
            prefill(card, report, ceilings, name, SMALL_PROMPTS if card.small else PROMPTS)


def prefill(card: Card, report: Report, ceilings: Ceilings, name: str, prompts: tuple[tuple[int, int], ...]) -> None:
    config = published(name, card)
    longest = max(tokens for tokens, _ in prompts)
    loaded = Loaded(card, config, Limits(longest, 1, longest), graphs=False)
    table = report.table(
        f"Prompts of {name} in bfloat16, one sequence, the logits of its last token",
        f"{'tokens':8}", "at once", "TFLOP", "ms", "tokens/s", "TFLOP/s", "% of product",
    )  # fmt: skip
    for tokens, at_once in prompts:
        if not report.has(15, f"{name}, {tokens} tokens, {at_once} at once"):
            continue
        with report.attempt(f"{name}, {tokens} tokens, {at_once} at once"):
            fastest = float("inf")
            for _ in range(1 + RUNS):  # the first one compiles
                sequence = Sequences(loaded.executable, config, [0])
                steps = [sequence.step([min(at_once, tokens - past)]) for past in range(0, tokens, at_once)]
                began = time.perf_counter()
                run_ahead(loaded, steps)
                fastest = min(fastest, time.perf_counter() - began)
            flops = prompt_flops(loaded.build.graph, tokens, at_once)
            table.row(
                f"{tokens:,}", at_once, flops / 1e12, Measured(1e3 * fastest), Measured(tokens / fastest),
                Measured(flops / fastest / 1e12), Measured(100 * flops / fastest / ceilings.flops),
            )  # fmt: skip
    loaded.close()
