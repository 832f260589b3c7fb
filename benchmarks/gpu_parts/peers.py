"""Beside Hugging Face transformers on the same card: each contender in a process of its own, one after the other."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from ernie_rt.contract import Limits
from ernie_rt.modeling.config import ModelConfig
from gpu_parts.card import Card
from gpu_parts.compiling import Wanted, compile_kernels
from gpu_parts.report import Measured, Report
from gpu_parts.stepping import Loaded, Sequences, run_ahead
from gpu_parts.weights import published

MODEL: Final = "21B-A3B"
PROMPT: Final = 512
DECODED: Final = 64
OURS: Final = "ernie-rt"
THEIRS: Final = frozenset(
    {"moe_num_experts", "moe_k", "moe_intermediate_size", "moe_num_shared_experts", "moe_layer_start_index"}
)
"""What their config says of experts, by the same names."""


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    if given.peer is not None:
        if given.peer not in CONTENDERS:
            raise SystemExit(f"--peer is one of: {', '.join(CONTENDERS)}")
        print(json.dumps(CONTENDERS[given.peer](card, report)))
        return
    table = report.table(
        f"{MODEL} in bfloat16, random weights, a prompt of {lengths(card)[0]} tokens, one sequence",
        f"{'contender':34}", "prompt, ms", "ms a token", "tokens/s", "ours/its",
    )  # fmt: skip
    ours: Mapping[str, float] | None = None
    for name in CONTENDERS:
        if not report.has(20, name):
            continue
        with report.attempt(name):
            found = in_a_process(name, given, report.left - 5)
            if found is None:
                report.note(f"{name}: not done in time; alone it has as long as it wants: --peer {name!r}")
                continue
            ours = ours or (found if name == OURS else None)
            ratio = Measured(found["decode"] / ours["decode"]) if ours else ""
            decode = found["decode"]
            table.row(name, Measured(1e3 * found["prompt"]), Measured(1e3 * decode), Measured(1 / decode), ratio)


def in_a_process(name: str, given: argparse.Namespace, seconds: float) -> Mapping[str, float] | None:
    """Seconds of the prompt and of each token after it; None if that takes longer than `seconds`."""
    script = Path(__file__).parents[1] / "gpu.py"
    small = ["--dry-run"] if given.dry_run else ["--small"] if given.small else []
    command = [sys.executable, str(script), "--part", "peers", "--peer", name, *small]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: Mapping[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def lengths(card: Card) -> tuple[int, int]:
    """Of the prompt, and of what is decoded after it."""
    return (12, 4) if card.small else (PROMPT, DECODED)


def ours(card: Card, report: Report) -> Mapping[str, float]:
    config, (prompt, decoded) = published(MODEL, card), lengths(card)
    compile_kernels(card, report, [Wanted(config, (1,), "bfloat16", card.pdl)])
    loaded = Loaded(card, config, Limits(prompt + 2 * decoded, 1, prompt))
    found: dict[str, float] = {}
    for _ in range(2):  # the first time warms up
        sequence = Sequences(loaded.executable, config, [0])
        began = time.perf_counter()
        run_ahead(loaded, [sequence.step([prompt])])
        middle = time.perf_counter()
        run_ahead(loaded, [sequence.decode() for _ in range(decoded)])
        found = {"prompt": middle - began, "decode": (time.perf_counter() - middle) / decoded}
    return found


def theirs(card: Card, report: Report, **options: Any) -> Mapping[str, float]:
    """What `generate` takes, greedily, of a model with the weights that transformers draws."""
    import transformers
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):
        """When tokens came: the prompt first, then one after the other."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: object) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    transformers.logging.set_verbosity_error()
    auto: Any = transformers.AutoModelForCausalLM
    config, (prompt, decoded) = published(MODEL, card), lengths(card)
    with card.device:
        model = auto.from_config(their_config(config), dtype=torch.bfloat16).eval()
    ids = torch.randint(5, config.vocab_size, (1, prompt), device=card.device)
    found: dict[str, float] = {}
    for _ in range(2):  # the first time warms up, and compiles
        clock = Clock()
        began = time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=1 + decoded, min_new_tokens=1 + decoded,
            do_sample=False, streamer=clock, pad_token_id=0, **options,
        )  # fmt: skip
        first, last = clock.times[1], clock.times[-1]
        found = {"prompt": first - began, "decode": (last - first) / decoded}
    return found


def their_config(config: ModelConfig) -> Any:
    """The same model as transformers describes it."""
    import transformers

    same = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    same += ["num_key_value_heads", "head_dim", "tie_word_embeddings"]
    fields = {name: getattr(config, name) for name in same}
    if config.moe is not None:
        fields |= {name: value for name, value in asdict(config.moe).items() if name in THEIRS}
    return transformers.AutoConfig.for_model(config.model_type, **fields)


def compiled(card: Card, report: Report) -> Mapping[str, float]:
    """With a static cache `generate` compiles the steps of decodes, on a GPU."""
    return theirs(card, report, cache_implementation="static")


CONTENDERS: Final[Mapping[str, Callable[[Card, Report], Mapping[str, float]]]] = {
    OURS: ours,
    "transformers": theirs,
    "transformers, static and compiled": compiled,
}
