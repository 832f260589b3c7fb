"""ONNX Runtime on the card: does it conform, and how fast does it decode?"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ernie_rt
from ernie_rt.host import PluginHost
from ernie_rt.location import Located
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.synthetic import Synthetic
from ernie_rt_bench.models import write_random
from gpu_parts.card import Card
from gpu_parts.commands import conform, run_all
from gpu_parts.report import Measured, Report
from gpu_parts.weights import published

MODEL: Final = "0.3B"
PROMPT: Final = 128
DECODED: Final = 64


def run(card: Card, report: Report, given: argparse.Namespace) -> None:
    device, dry = card.device.type, card.dry
    dtype = "float32" if dry else "float16"
    with report.attempt("the onnx backend"):
        devices = PluginHost().backend("onnx").devices()
        if not any(each.startswith(device) for each in devices):
            report.note(f"the onnx backend has {', '.join(devices)}: {device} wants onnxruntime-gpu, left out")
            return
        commands = [conform("onnx", device, dtype, "--storage", storage, dry=dry) for storage in ("plain", "int4")]
        run_all(report, f"Conformance on {device}", commands)
        title = f"Decoding {MODEL} by ONNX Runtime, one sequence, {dtype}"
        table = report.table(title, f"{'weights':10}", "load, s", "ms a token", "tokens/s")
        with tempfile.TemporaryDirectory() as work:
            for weights in ("plain", "int4"):
                with report.attempt(f"decoding, {weights} weights"):
                    began = time.perf_counter()
                    model = load(card, dtype, None if weights == "plain" else Path(work) / weights)
                    loaded, seconds = time.perf_counter() - began, 0.0
                    with model:
                        seconds = seconds_a_token(model)
                    table.row(weights, Measured(loaded), Measured(1e3 * seconds), Measured(1 / seconds))


def load(card: Card, dtype: str, folder: Path | None) -> ernie_rt.Model:
    config, device = published(MODEL, card), str(card.device)
    if folder is None:
        located, weights = Located(config), Synthetic()
        return ernie_rt.load(located, backend="onnx", device=device, dtype=dtype, max_context=512, weights=weights)
    write_random(folder, config, Quantization(4, layout="raw"))
    return ernie_rt.load(Located(config, folder), backend="onnx", device=device, dtype=dtype, max_context=512)


def seconds_a_token(model: ernie_rt.Model) -> float:
    seconds, prompt = 0.0, [5 + place % 64 for place in range(PROMPT)]
    for _ in range(2):  # the first one warms up
        tokens: Iterator[int] = model.stream_ids(prompt, max_new_tokens=1 + DECODED, ignore_eos=True)
        next(tokens)
        began = time.perf_counter()
        count = sum(1 for _ in tokens)
        seconds = (time.perf_counter() - began) / count
    return seconds
