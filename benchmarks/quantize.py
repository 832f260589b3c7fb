"""How fast models are quantised, and in how much memory.

For the shapes of a known model, with synthetic weights: one layer of mixture of experts and the embedding are written
as a folder would be, with rounding alone and with clip search. Speeds count bfloat16 bytes taken in. `rounding` is
that of the arithmetic by itself, on two threads, beside the bandwidth of a copy measured in the same rounds; `writing`
is that of the whole way from drawing the numbers to a synced file, and the peak is that of anonymous memory.

With --export the whole model goes through the ONNX exporter instead, with rounding alone, and what was written is
verified. The folder lies in TMPDIR meanwhile: 12.5 GB for the 21B in int4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ernie_rt.cli.output import PeakMemory, anonymous_bytes
from ernie_rt.export import ExportOptions, export, verify
from ernie_rt.graph.types import Weight
from ernie_rt.location import Located
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights.folder import write_quantized
from ernie_rt.weights.quantize import Quantization, Quantizer
from ernie_rt.weights.synthetic import Synthetic

ROWS = 2048


def arithmetic(storage: BlockQuantized, columns: int, threads: int, rounds: int) -> dict[str, float]:
    """MB/s of bfloat16 that `quantize` takes in with and without search, and GB/s of a copy, in alternating rounds."""
    rng = np.random.default_rng(0)
    pieces = [rng.normal(0, 0.02, (ROWS, columns)).astype(np.float32) for _ in range(threads)]
    copies = [np.empty_like(piece) for piece in pieces]
    found: dict[str, list[float]] = {"rounding_mb_per_s": [], "search_mb_per_s": [], "copy_gb_per_s": []}
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            for name, search in (("rounding_mb_per_s", False), ("search_mb_per_s", True)):
                began = time.perf_counter()
                list(pool.map(lambda piece, how=search: storage.quantize(piece, search=how, where="w"), pieces))
                found[name].append(2 * ROWS * columns * threads / (time.perf_counter() - began) / 1e6)
            began = time.perf_counter()
            list(pool.map(np.copyto, copies, pieces))
            found["copy_gb_per_s"].append(8 * ROWS * columns * threads / (time.perf_counter() - began) / 1e9)
    return {name: statistics.median(values) for name, values in found.items()}


def writing(weights: list[Weight], search: bool, threads: int) -> dict[str, float]:
    """Write weights into a folder that is removed again."""
    read = sum(2 * weight.type.elements() for weight in weights)
    with tempfile.TemporaryDirectory() as folder:
        before, began = anonymous_bytes(), time.perf_counter()
        with PeakMemory() as peak:
            write_quantized(Path(folder) / "out", None, weights, {}, Quantizer(Synthetic(0), search, threads))
        seconds = time.perf_counter() - began
    return {
        "gb": read / 1e9,
        "seconds": seconds,
        "mb_per_s": read / seconds / 1e6,
        "peak_gb": (peak.nbytes - before) / 1e9,
    }


class DrawnModel(Located):
    """A checkpoint that nobody stores."""

    def weights(self, *, reread: bool = False) -> Synthetic:  # type: ignore[override]  # the exporter needs no more of a checkpoint than this
        return Synthetic()


def exporting(config: ModelConfig, how: Quantization, threads: int) -> dict[str, float]:
    """Export a whole model into a folder that is removed again, and verify it."""
    fields = asdict(config)
    fields |= fields.pop("moe") or {}
    with tempfile.TemporaryDirectory() as folder:
        beside, out = Path(folder) / "config", Path(folder) / "out"
        beside.mkdir()
        (beside / "config.json").write_text(json.dumps(fields))
        before, began = anonymous_bytes(), time.perf_counter()
        with PeakMemory() as exporting:
            written = export(DrawnModel(config, beside), out, "onnx", ExportOptions(how, threads=threads))
        between = time.perf_counter()
        with PeakMemory() as verifying:
            verify(out)
        ended = time.perf_counter()
    return {
        "gb": sum(2 * weight.type.elements() for weight in how.weights(config)) / 1e9,
        "written_gb": sum(written.files.values()) / 1e9,
        "model_onnx_kb": written.files["model.onnx"] / 1e3,
        "export_seconds": between - began,
        "export_peak_gb": (exporting.nbytes - before) / 1e9,
        "verify_seconds": ended - between,
        "verify_peak_gb": (verifying.nbytes - before) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="21B-A3B")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--block", type=int, choices=(32, 64, 128), default=32)
    parser.add_argument("--experts", type=int, default=None, help="of the layer; all when not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-arithmetic", action="store_true")
    parser.add_argument("--export", action="store_true", help="the whole model, to ONNX")
    options = parser.parse_args()
    family = find(options.model)
    if family is None:
        parser.error(f"unknown model {options.model}")
    config = family.config
    how = Quantization(options.bits, options.block)
    if options.export:
        found_whole = exporting(config, replace(how, clip_search=False), options.threads)
        print(json.dumps({"model": family.name, "storage": str(how.linears), "threads": options.threads} | found_whole))
        return
    if config.moe is not None and options.experts is not None:
        config = replace(config, moe=replace(config.moe, moe_num_experts=options.experts))
    storage = BlockQuantized(options.bits, options.block)
    found: dict[str, object] = {"model": family.name, "storage": str(storage), "threads": options.threads}
    found |= arithmetic(storage, config.hidden_size, options.threads, options.rounds)
    if not options.only_arithmetic:
        layer = f"layers.{config.num_hidden_layers - 1}."
        weights = [w for w in how.weights(config) if w.name.startswith(layer) or w.name == "embed.weight"]
        found |= {
            "rounding": writing(weights, False, options.threads),
            "search": writing(weights, True, options.threads),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
