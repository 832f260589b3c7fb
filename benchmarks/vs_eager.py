"""The onnx backend against eager: same shapes, random weights, same threads, alternating rounds.

Contenders are loaded into one process and take turns; which of them begins changes with every round. Each round also
measures how fast memory can be read at that moment: a sum over 1 GiB by all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import ernie_rt
from ernie_rt.location import Located
from ernie_rt.modeling.families import find
from ernie_rt.session import Model
from ernie_rt.weights.folder import write_quantized
from ernie_rt.weights.quantize import Quantization, Quantizer
from ernie_rt.weights.synthetic import Synthetic

LAYERS = {"0.3B": None, "21B-A3B": 4}
"""How many layers of each model are built: of the larger one a slice, dense first layer and three of experts."""
CONTENDERS = (("eager", "bfloat16", None), ("onnx", "float32", None), ("onnx", "float32", 8), ("onnx", "float32", 4))
READ_BYTES = 1 << 30


@dataclass(slots=True)
class Figures:
    """Tokens a second, round by round."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def located(name: str, layers: int | None) -> Located:
    """The model of this name, or its first layers."""
    family = find(name)
    assert family is not None
    config = family.config if layers is None else replace(family.config, num_hidden_layers=layers)
    if config.moe is not None:
        config = replace(config, moe=replace(config.moe, moe_layer_end_index=config.num_hidden_layers - 1))
    return Located(config)


def load(model: Located, backend: str, dtype: str, bits: int | None, tokens: int, threads: int, work: Path) -> Model:
    if bits is None:
        weights = Synthetic()
        return ernie_rt.load(model, backend=backend, dtype=dtype, weights=weights, max_context=tokens, threads=threads)
    folder = work / f"int{bits}"
    how = Quantization(4 if bits == 4 else 8, clip_search=False)
    if not folder.exists():
        produce = Quantizer(Synthetic(), how.clip_search, threads)
        write_quantized(folder, None, how.weights(model.config), how.plan("synthetic"), produce)
    quantized = Located(model.config, folder)
    return ernie_rt.load(quantized, backend=backend, dtype=dtype, max_context=tokens, threads=threads)


def measure(model: Model, prompt: int, decode: int, figures: Figures) -> None:
    ids = list(range(5, 5 + prompt))
    began = time.perf_counter()
    model.generate_ids(ids, max_new_tokens=1, ignore_eos=True)
    figures.prefill.append(prompt / (time.perf_counter() - began))
    stream: Iterator[int] = model.stream_ids(ids[:8], max_new_tokens=decode + 1, ignore_eos=True)
    next(stream)
    began = time.perf_counter()
    count = sum(1 for _ in stream)
    figures.decode.append(count / (time.perf_counter() - began))


def bandwidth(block: torch.Tensor) -> float:
    """GB/s of one pass over memory."""
    began = time.perf_counter()
    block.sum()
    return block.nbytes / (time.perf_counter() - began) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=LAYERS, default="0.3B")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=32, help="tokens decoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokens = located(given.model, LAYERS[given.model]), given.prompt + given.decode + 16
    block = torch.ones(READ_BYTES // 4)
    read: list[float] = []
    found = {contender: Figures() for contender in CONTENDERS}
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        models = {
            (backend, dtype, bits): stack.enter_context(
                load(model, backend, dtype, bits, tokens, given.threads, Path(work))
            )
            for backend, dtype, bits in CONTENDERS
        }
        for number in range(given.rounds + 1):
            order = CONTENDERS[number % len(CONTENDERS) :] + CONTENDERS[: number % len(CONTENDERS)]
            for contender in order:
                figures = found[contender] if number else Figures()  # the first round warms up
                read.append(bandwidth(block))
                measure(models[contender], given.prompt, given.decode, figures)
    names = {c: f"{c[0]} {c[1] if c[2] is None else f'int{c[2]}'}" for c in CONTENDERS}
    medians = {
        names[c]: {"prefill": statistics.median(f.prefill), "decode": statistics.median(f.decode)}
        for c, f in found.items()
    }
    if given.json:
        print(json.dumps({"model": given.model, "threads": given.threads, "read": read, "tokens_per_second": medians}))
        return
    print(f"{given.model}, {given.threads} threads, memory read at {statistics.median(read):.1f} GB/s")
    for name, median in medians.items():
        print(f"{name:16} prefill {median['prefill']:8.1f} tokens/s   decode {median['decode']:7.2f} tokens/s")


if __name__ == "__main__":
    main()
