"""What the host does in each step of an engine, beside the backend, and how long that takes.

`steps`: composing a step of so many greedy sequences, its arrays, reading its result, and ending what ends, on an
executable that gives tokens at once. Pages are taken on the way, and all sequences are long.

`sampling`: choosing tokens from rows of logits, ERNIE 4.5's 103,424 of them, one row after the other (`sample`) and
together (`sample_rows`). The rows are such as language models give, a few likely tokens and a long tail (logits fall
with the logarithm of the rank), and flat ones, of which top-p keeps thousands.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from ernie_rt.contract import CacheShape, Done, ExecutableBase, MemoryReport, Step, StepLimits, StepResult
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.sampler import Sampled, sample, sample_rows
from ernie_rt.sampling.state import SamplerState

PROMPT: Final = 200
STEPS: Final = 200
SEQUENCES: Final = (1, 64, 256)
VOCAB_SIZE: Final = 103_424
COUNTS: Final = (1, 16, 64)
CASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "greedy": {},
    "temperature 1": {"temperature": 1.0},
    "top-p 0.8": {"temperature": 0.8, "top_p": 0.8},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "min-p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "repetition 1.1, top-p 0.95": {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1},
}


def language_like(random: np.random.Generator) -> np.ndarray:
    return 20 - 1.6 * np.log(random.permutation(VOCAB_SIZE) + 1) + 0.5 * random.standard_normal(VOCAB_SIZE)


def flat(random: np.random.Generator) -> np.ndarray:
    return 2 * random.standard_normal(VOCAB_SIZE)


def quickest(runs: int, *tasks: Callable[[], object]) -> list[float]:
    """Seconds of processor time of the quickest of so many runs of each task; they take turns."""
    seconds = [float("inf")] * len(tasks)
    for _ in range(runs):
        for place, task in enumerate(tasks):
            began = time.thread_time()
            task()
            seconds[place] = min(seconds[place], time.thread_time() - began)
    return seconds


def one_by_one(logits: np.ndarray, states: Sequence[SamplerState]) -> list[Sampled]:
    return [sample(row, state) for row, state in zip(logits, states, strict=True)]


def sampling(runs: int) -> None:
    random = np.random.default_rng(0)
    prompt = random.integers(0, VOCAB_SIZE, 2000).tolist()
    for shape in (language_like, flat):
        logits = np.stack([shape(random).astype(np.float32) for _ in range(max(COUNTS))])
        head = "".join(f"{f'of {count}':>9}" for count in COUNTS)
        print(f"sampling, {shape.__name__} logits: ms for a row alone and of so many, quickest of {runs} runs")
        print(f"  {'':28}{'alone':>9}{head}{'alone / last':>14}")
        for name, options in CASES.items():
            states = [SamplerState(SamplingParams(seed=n, **options), prompt) for n in range(len(logits))]
            together = [partial(sample_rows, logits[:count], states[:count]) for count in COUNTS]
            seconds = quickest(runs, partial(one_by_one, logits, states), *together)
            each = [1e3 * total / count for total, count in zip(seconds, (len(logits), *COUNTS), strict=True)]
            print(f"  {name:28}{''.join(f'{ms:9.3f}' for ms in each)}{each[0] / each[-1]:14.2f}")


class Null(ExecutableBase):
    """Draws the same token for every sequence, and computes nothing."""

    ahead = 1

    def __init__(self, sequences: int) -> None:
        self.cache = CacheShape("paged", 16, sequences * -(-(PROMPT + STEPS * 4) // 16))
        self.admits = StepLimits(max(512, sequences), sequences)

    def submit(self, step: Step) -> Done:
        return Done(StepResult(tokens=np.full((len(step.past), 1), 7, np.int32)))

    def copy(self, source: int, destination: int, length: int) -> None:
        pass

    def memory(self) -> MemoryReport:
        return MemoryReport(0, 0)


def steps(runs: int) -> None:
    print(
        f"steps, {PROMPT} tokens of prompt each: ms a step, median and quickest of {STEPS} steps, best of {runs} runs"
    )
    for count in SEQUENCES:
        medians, quickest_steps = [], []
        for _ in range(runs):
            engine = Engine(Null(count), PROMPT + STEPS * 4)
            for number in range(count):
                engine.submit(Request((*range(PROMPT - 1), number), STEPS * 3))
            for _ in range(-(-count * PROMPT // 512) + 20):
                engine.step()
            taken = []
            for _ in range(STEPS):
                began = time.perf_counter()
                engine.step()
                taken.append(1e3 * (time.perf_counter() - began))
            medians.append(float(np.median(taken)))
            quickest_steps.append(min(taken))
        print(f"  {count:4} sequences {min(medians):9.3f} {min(quickest_steps):9.3f}")


SECTIONS: Final[Mapping[str, Callable[[int], None]]] = {"steps": steps, "sampling": sampling}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all if none is named"
    )
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]}")
    for name in options.sections or SECTIONS:
        SECTIONS[name](options.runs)


if __name__ == "__main__":
    main()
