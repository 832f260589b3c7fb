"""The backends on one NVIDIA GPU: are they right, and how near do they come to what the card can do?

    pip install --no-deps --no-build-isolation -e .      # beside PyTorch for CUDA, which brings Triton

    python benchmarks/gpu.py --part check --json check.json
    python benchmarks/gpu.py --part check --sanitizer
    python benchmarks/gpu.py --part decode --json decode.json
    python benchmarks/gpu.py --part peers --json peers.json
    python benchmarks/gpu.py --part prefill --json prefill.json
    python benchmarks/gpu.py --part eager --json eager.json
    python benchmarks/gpu.py --part onnx --json onnx.json

Each part takes three minutes at most, compiling kernels included, and leaves out, saying so, what does not fit. Nothing
is downloaded: weights are random, in the exact shapes, and drawn on the card, which needs 55 GB for the 21B. Kernels
stay compiled in Triton's cache (TRITON_CACHE_DIR) from one part to the next. The exit code is 1 if something failed.

`check` holds each block at the shapes of three models to float64, and to itself with and without graphs and
programmatic launches; draws to PyTorch's sampler; whole decodes to eager's, of text and of a model that sees. `eager`
runs the conformance suite on the card, and the tests that take a device; `onnx` does so for ONNX Runtime. `decode` and
`prefill` first measure what the card does at best, then whole steps and each kernel beside that; `peers` has
transformers take its turn.

With --dry-run all of it runs without a GPU: small shapes, kernels by Triton's interpreter, no figures.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

PARTS: Final = ("check", "eager", "onnx", "decode", "prefill", "peers")
MODELS: Final = ("0.3B", "21B-A3B", "300B-A47B")
LIMIT: Final = 170
"""Seconds, so that a part ends within three minutes."""


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--model", action="append", choices=MODELS, help="check, decode, prefill: may be given again")
    parser.add_argument("--sanitizer", action="store_true", help="check: small models under compute-sanitizer instead")
    parser.add_argument("--peer", help="peers: one contender alone, in this process")
    parser.add_argument("--small", action="store_true", help="small models on the card, without graphs")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args(given)


def facts() -> dict[str, Any]:
    """What the figures are of."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in ("torch", "triton", "transformers", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = "unknown"
    return found


def main() -> int:
    given = arguments()
    if given.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined
    import torch

    from gpu_parts.card import Card
    from gpu_parts.report import Report

    if not given.dry_run and not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here; --dry-run does without", file=sys.stderr)
        return 2
    card = Card(dry=given.dry_run, small=given.small)
    said = {"part": given.part, "card": card.name, **facts()}
    report = Report(said, dry=given.dry_run, limit=given.limit)
    importlib.import_module(f"gpu_parts.{given.part}").run(card, report, given)
    if given.json is not None:
        report.write(given.json)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
