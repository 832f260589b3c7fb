"""How long the host takes to choose a token from one row of logits, ERNIE 4.5's 103,424 of them.

The rows are such as language models give, a few likely tokens and a long tail (logits fall with the logarithm of the
rank), and normal ones, which are far flatter: many tokens stay after top-p, and each has to draw its noise.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.sampler import Row, keep, sample
from ernie_rt.sampling.state import SamplerState

VOCAB_SIZE = 103_424
CASES = {
    "greedy": SamplingParams(),
    "temperature 0.8": SamplingParams(temperature=0.8, seed=0),
    "top-p 0.8": SamplingParams(temperature=0.8, top_p=0.8, seed=0),
    "top-p 0.95": SamplingParams(temperature=0.8, top_p=0.95, seed=0),
    "top-k 50": SamplingParams(temperature=0.8, top_k=50, seed=0),
    "min-p 0.05": SamplingParams(temperature=0.8, min_p=0.05, seed=0),
    "repetition 1.1, top-p 0.95": SamplingParams(temperature=0.8, top_p=0.95, repetition_penalty=1.1, seed=0),
}


def rows() -> dict[str, Row]:
    random = np.random.default_rng(0)
    ranks = random.permutation(VOCAB_SIZE) + 1
    noise = random.standard_normal(VOCAB_SIZE)
    return {
        "language-like": (20 - 1.6 * np.log(ranks) + 0.5 * noise).astype(np.float32),
        "normal": (2 * noise).astype(np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    prompt = np.random.default_rng(1).integers(0, VOCAB_SIZE, 2000).tolist()
    for kind, row in rows().items():
        print(f"{kind} logits: median and best of {runs} runs")
        for name, params in CASES.items():
            state = SamplerState(params, prompt)
            times = []
            for _ in range(runs):
                began = time.perf_counter()
                sample(row, state)
                times.append(1e3 * (time.perf_counter() - began))
            kept = keep(row / np.float32(params.temperature), params) if params.temperature else np.zeros(1, np.intp)
            left = VOCAB_SIZE if kept is None else len(kept)
            print(f"  {name:28}{statistics.median(times):8.3f} ms {min(times):8.3f} ms   of {left} tokens")


if __name__ == "__main__":
    main()
