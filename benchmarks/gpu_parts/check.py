"""Is it right? Blocks at real shapes, draws at the real vocabulary, whole decodes, and the compute sanitizer."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ernie_rt.build import build
from ernie_rt.contract import Draws, Limits, StepResult, Target
from ernie_rt.graph.types import DType
from ernie_rt.modeling.config import ModelConfig
from ernie_rt_cudagraph.inputs import device_draws
from ernie_rt_cudagraph.sampling import draw, is_greedy
from ernie_rt_eager import sampler
from ernie_rt_eager.backend import EagerBackend
from gpu_parts.blocks import TIMES_EAGER, Case, check_blocks
from gpu_parts.card import Card
from gpu_parts.compiling import Wanted, compile_kernels
from gpu_parts.report import Measured, Report
from gpu_parts.stepping import Loaded, Sequences
from gpu_parts.weights import Drawn, published, seeing, two_layers

MODELS: Final = ("0.3B", "21B-A3B", "300B-A47B")
CASES: Final = (Case(1), Case(2), Case(4), Case(32), Case(64), Case(128), Case(320, prompt=True))
SMALL_CASES: Final = (Case(1), Case(4), Case(24, prompt=True))
HOW_DRAWN: Final[Mapping[str, Mapping[str, float]]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "min-p 0.05": {"temperature": 1.0, "min_p": 0.05},
}
DRAWN_ROWS: Final = (1, 8, 128)
NEAR: Final = 1e-4
"""Scores with their noise are as good as equal: two libraries' logarithms decide."""
PROMPTS: Final = (7, 33, 100, 150)
DECODED: Final = 16
AS_GOOD: Final = 0.12
"""So far below the best logit, as a share of their size, is a token in bfloat16 as good."""
SANITIZER: Final = "compute-sanitizer"


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    if given.sanitizer:
        sanitize(report, dry=card.dry)
        return
    cases = SMALL_CASES if card.small else CASES
    models = {name: published(name, card) for name in given.model or MODELS}
    rows = tuple(case.rows for case in cases if not case.prompt)
    ways = {False, card.pdl}
    decoding = {"the 21B": two_layers(published("21B-A3B", card)), "the 28B that sees": seeing(card)}
    wanted = [(each, rows) for each in models.values()] + [(decoding["the 28B that sees"], (len(PROMPTS),))]
    compile_kernels(card, report, [Wanted(*each, "bfloat16", pdl) for each in wanted for pdl in ways])
    check_draws(card, report, published("21B-A3B", card).vocab_size)
    for name, config in decoding.items():
        with report.attempt(f"whole decodes of {name}"):
            check_decodes(card, report, name, config)
    for name, config in models.items():
        check_blocks(card, report, name, config, cases, "bfloat16")
    check_blocks(card, report, "0.3B", published("0.3B", card), cases[1:2], "float32")


def check_draws(card: Card, report: Report, vocabulary: int) -> None:
    """Tokens drawn by the kernels beside those of the sampler in PyTorch, of the same logits."""
    title = f"Draws among {vocabulary:,} ids beside PyTorch's sampler"
    table = report.table(title, f"{'how':14}", "rows", "the same", "as good", "others")
    for rows in DRAWN_ROWS[:1] if card.small else DRAWN_ROWS:
        logits = 3 * torch.randn(rows, vocabulary, generator=card.generator(rows), device=card.device)
        for name, options in HOW_DRAWN.items():
            with report.attempt(f"draws, {name}, {rows} rows"):
                draws = draws_of(rows, vocabulary, options)
                found = draw(logits, device_draws(draws, card.device), greedy=is_greedy(draws))
                expected = sampler.draw(logits, draws)
                different = torch.nonzero(found != expected).flatten().tolist()
                near = sum(is_near(logits[row], draws, row, found[row], expected[row]) for row in different)
                table.row(name, rows, rows - len(different), near, len(different) - near)
                if near < len(different):
                    report.fail(f"draws, {name}, {rows} rows: {len(different) - near} tokens are others")


def draws_of(rows: int, vocabulary: int, options: Mapping[str, float]) -> Draws:
    greedy = Draws.greedy(rows, vocabulary)
    arrays = {name: np.full(rows, value, getattr(greedy, name).dtype) for name, value in options.items()}
    seeds = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x123456789ABCDEF)
    return replace(greedy, **arrays, seed=seeds, position=np.arange(rows, dtype=np.int32))


def is_near(logits: Tensor, draws: Draws, row: int, *tokens: Tensor) -> bool:
    """Whether two tokens have nearly the same score in a row, noise and all."""
    ids = torch.stack(tokens).long()
    if int(ids.min()) < 0:
        return False
    scores = logits[ids]
    if draws.temperature[row] > 0:
        high, low = divmod(int(draws.seed[row]), 1 << 32)
        words = (torch.tensor([[word]], device=ids.device) for word in (low, high, int(draws.position[row])))
        scores = scores / float(draws.temperature[row]) + sampler.gumbel(ids[None], *words)[0]
    return bool((scores[0] - scores[1]).abs() < NEAR)


def check_decodes(card: Card, report: Report, name: str, config: ModelConfig) -> None:
    """Two layers of a model decode several prompts together: with and without graphs and PDL, and as eager does."""
    prompts, decoded = ([3, 8], 2) if card.small else (list(PROMPTS), DECODED)
    limits = Limits(256, len(prompts), sum(prompts))
    title = f"Two layers of {name}: {len(prompts)} prompts, then {decoded} tokens each, greedily, bfloat16"
    table = report.table(
        title, f"{'how':20}", "bits", "from float32", "the farthest", "best token", "as good", "others"
    )
    ways = {"graphs": (True, card.pdl), "no graphs": (False, card.pdl), "no graphs, no PDL": (False, False)}
    first: list[StepResult] = []
    verdicts = []
    for way, (graphs, pdl) in ways.items():
        loaded = Loaded(card, config, limits, graphs=graphs, pdl=pdl, cache=float("nan"), drawn=torch.bfloat16)
        sequences = Sequences(loaded.executable, config, [0] * len(prompts), fetch=True)
        last_drawn = np.full(len(prompts), -1, np.int32)
        steps = (sequences.decode(last_drawn) if number else sequences.step(prompts) for number in range(decoded + 1))
        found = [loaded.executable.submit(step).result() for step in steps]
        loaded.close()
        same = all(
            np.array_equal(array_of(one, part), array_of(other, part), equal_nan=True)
            for one, other in zip(found, first or found, strict=True)
            for part in ("logits", "tokens")
        )
        if not same:
            report.fail(f"two layers of {name}, {way}: other bits than with graphs")
        first = first or found
        verdicts.append("the same" if same else "differ")
    tokens = [array_of(result, "tokens")[:, 0].astype(np.int32) for result in first]
    exact, rough = (eager_logits(card, config, limits, prompts, tokens, dtype) for dtype in ("float32", "bfloat16"))
    ours = beside([array_of(result, "logits") for result in first], exact)
    eager = beside(rough, exact)
    for way, verdict in zip(ways, verdicts, strict=True):
        table.row(way, verdict, *(ours if way == "graphs" else [""] * len(ours)))
    table.row("eager", "", *eager)
    if ours[-1] or not ours[0] <= TIMES_EAGER * eager[0]:
        what = f"{ours[-1]} tokens are others than float32's, logits {ours[0]:.2e} from its, eager's {eager[0]:.2e}"
        report.fail(f"two layers of {name}: {what}")


def array_of(result: StepResult, name: str) -> np.ndarray:
    array: np.ndarray | None = getattr(result, name)
    assert array is not None
    return array


def eager_logits(
    card: Card, config: ModelConfig, limits: Limits, prompts: list[int], tokens: list[np.ndarray], dtype: DType
) -> list[np.ndarray]:
    """Of each step, when eager is told the same tokens, with the same weights."""
    built = build(config, EagerBackend(), Target((str(card.device),), dtype))
    executable = built.compile(Drawn(drawn=torch.bfloat16), limits)
    sequences = Sequences(executable, config, [0] * len(prompts))
    steps = (sequences.decode(ids) if ids is not None else sequences.step(prompts) for ids in (None, *tokens[:-1]))
    found = [array_of(executable.submit(step).result(), "logits") for step in steps]
    executable.close()
    card.empty()
    return found


def beside(found: list[np.ndarray], exact: list[np.ndarray]) -> tuple[Measured, Measured, int, int, int]:
    """How far rows of logits are from exact ones, as a share of their size: the middle row, and the farthest one, for
    which another expert may have been chosen. Then how many rows have the best token, one as good, and another."""
    distances, equal, near, others = [], 0, 0, 0
    for mine, expected in zip(np.concatenate(found), np.concatenate(exact), strict=True):
        size = float(np.sqrt(np.mean(expected**2)))
        distances.append(float(np.sqrt(np.mean((mine - expected) ** 2))) / size)
        behind = float(expected.max() - expected[mine.argmax()])
        equal += behind == 0
        near += 0 < behind < AS_GOOD * size
        others += not behind < AS_GOOD * size
    return Measured(np.median(distances)), Measured(max(distances)), equal, near, others


def sanitize(report: Report, *, dry: bool) -> None:
    """The checks of small models on the card, under the tools of the compute sanitizer."""
    program = shutil.which(SANITIZER) or shutil.which(SANITIZER, path="/usr/local/cuda/bin")
    script = Path(__file__).parents[1] / "gpu.py"
    child = [sys.executable, str(script), "--part", "check", "--model", "21B-A3B", "--dry-run" if dry else "--small"]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or one allocation runs into the next unseen
    table = report.table(
        "Small models under the compute sanitizer", f"{'tool':12}", "seconds", "what it says".ljust(60)
    )
    if program is None and not dry:
        report.note(f"{SANITIZER} is not on the PATH: left out")
        return
    for tool in ("memcheck", "racecheck"):
        if not report.has(30, tool):
            continue
        command = child if program is None else [program, "--tool", tool, "--error-exitcode", "9", *child]
        before = report.left
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=max(before, 1))
            output, ended = done.stdout + done.stderr, f"exit code {done.returncode}"
            good = done.returncode == 0
        except subprocess.TimeoutExpired as stopped:
            output, ended = (stopped.stdout or b"") + (stopped.stderr or b""), "not done in time"
            good = b"ERROR" not in output and b"FAILED" not in output
        lines = output.decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("=========")]
        table.row(tool, Measured(before - report.left), said[-1] if said else ended)
        if not good:
            report.fail(f"{tool}: {ended}")
            for line in said[:40] or lines[-20:]:
                report.note(line)
