"""What deterministic mode costs: two models with the same random weights, with it and without, in alternating runs.

Each line is a number of streams that begin together, with so many tokens of prompt and so many new ones each: seconds
of processor time of the quickest run without the mode and with it, and how many times as long that took. With one
thread other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Final

import numpy as np

import ernie_rt
from ernie_rt.weights.synthetic import Synthetic

WORK: Final = ((1, 512, 1), (1, 16, 32), (8, 16, 32), (32, 16, 32))
"""Streams, tokens of prompt, new tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="0.3B", help="a published model, for its shape")
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load = partial(
        ernie_rt.load, options.model, backend=options.backend, device=options.device, dtype=options.dtype,
        threads=options.threads, max_context=1024, max_sequences=32, cache_tokens=8192, reuse=False,
    )  # fmt: skip
    with load(weights=Synthetic()) as without, load(weights=Synthetic(), deterministic=True) as with_it:
        print(f"{options.model} on {without.choice.backend}, {without.choice.device}, {without.choice.dtype}")
        print(f"{'streams':>8}{'prompt':>8}{'new':>6}{'without':>10}{'with':>10}{'times':>8}")
        random = np.random.default_rng(0)
        for streams, prompt, new in WORK:
            prompts = random.integers(0, without.config.vocab_size, (streams, prompt)).tolist()
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(options.rounds):
                for deterministic, model in ((False, without), (True, with_it)):
                    began = time.process_time()
                    model.generate_batch(prompts, max_new_tokens=new, ignore_eos=True)
                    seconds[deterministic].append(time.process_time() - began)
            off, on = (min(seconds[deterministic]) for deterministic in (False, True))
            print(f"{streams:8}{prompt:8}{new:6}{off:10.2f}{on:10.2f}{on / off:8.2f}", flush=True)


if __name__ == "__main__":
    main()
