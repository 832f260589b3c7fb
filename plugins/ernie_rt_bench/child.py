"""The process of a contender that is Python: it loads a model, warms up, and does what it is told, a line each time."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from ernie_rt.errors import ErnieRtError
from ernie_rt_bench.workload import WARM_UP

RUNNERS: Final[Mapping[str, str]] = {
    "ernie-rt": "ernie_rt_bench.ours:Ours",
    "transformers": "ernie_rt_bench.peers.transformers:Transformers",
    "onnxruntime-genai": "ernie_rt_bench.peers.genai:Genai",
}


class Runner(Protocol):
    """A loaded model; constructed from what its contender was given, by name."""

    facts: dict[str, Any]
    vocabulary: int

    def prefill(self, ids: Sequence[int], new: int) -> None:
        """Read a prompt, up to the first of `new` + 1 tokens after it."""
        ...

    def decode(self) -> None:
        """The others."""
        ...

    def look(self, size: Sequence[int], ids: Sequence[int], seed: int) -> tuple[float, float]:
        """Seconds of the tower for a random picture, and of reading another one and these tokens."""
        ...

    def by_op(self, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]: ...

    def close(self) -> None: ...


def main() -> None:
    """Answer on standard output, to which nothing else can write."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(told: object) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    try:
        _serve(json.loads(sys.argv[1]), answer)
    except ErnieRtError as error:
        parts = {name: getattr(error, name) for name in ("what", "where", "expected", "found", "hint")}
        answer({"error": {"type": type(error).__name__, **parts}})


def _serve(given: Mapping[str, Any], answer: Any) -> None:
    module, _, name = RUNNERS[given["runner"]].partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(**given["arguments"])
    runner.prefill(_tokens(WARM_UP, runner.vocabulary, 0), WARM_UP)
    runner.facts.setdefault("first", time.time() - given["began"] - runner.facts.pop("preparing", 0.0))
    runner.decode()
    for context in given["contexts"]:  # what memory so long a prompt takes, and the rest of the weights
        runner.prefill(_tokens(context, runner.vocabulary, 0), WARM_UP)
        runner.decode()
    answer(runner.facts)
    for line in sys.stdin:
        told = json.loads(line)
        match told["do"]:
            case "prefill":
                ids = _tokens(told["context"], runner.vocabulary, 1 + told["seed"])
                began = time.perf_counter()
                runner.prefill(ids, told["new"])
                answer(time.perf_counter() - began)
            case "decode":
                began = time.perf_counter()
                runner.decode()
                answer(time.perf_counter() - began)
            case "look":
                ids = _tokens(told["context"], runner.vocabulary, told["seed"])
                answer(runner.look(told["size"], ids, told["seed"]))
            case "by op":
                answer(runner.by_op(_tokens(told["context"], runner.vocabulary, 0)))
    runner.close()


def _tokens(count: int, vocabulary: int, seed: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, vocabulary, count).tolist()
    return found


if __name__ == "__main__":
    main()
