"""How soon the first token of a long prompt comes after a restart, from the cache on disk.

Every figure is of a process of its own, on random weights of a published shape: the first computes the prompt and keeps
its rows, those after it find them. With `--cold` the folder is written back and pushed out of the page cache before
each, so that rows come from the disk itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

import ernie_rt
from ernie_rt.weights.synthetic import Synthetic


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Load once and ask once, in this process."""
    ids = np.random.default_rng(0).integers(10, 100_000, options.prompt).tolist()
    context = options.prompt + 16
    with ernie_rt.load(
        options.model, weights=Synthetic(), backend=options.backend, device="cpu", dtype=options.dtype,
        max_context=context, threads=options.threads, cache_dir=options.folder,
    ) as model:  # fmt: skip
        model.generate_ids(ids[-32:], max_new_tokens=2, ignore_eos=True)  # a warm-up, too short to be kept
        began = time.perf_counter()
        steps = []
        for _ in model.stream_ids(ids, max_new_tokens=12, ignore_eos=True):
            now = time.perf_counter()
            steps.append(now - began)
            began = now
        cached = model.engine.stats().cached_tokens
        closing = time.perf_counter()
    first, *others = steps
    return {
        "first_s": first, "cached": cached, "step_ms": 1e3 * median(others), "slowest_step_ms": 1e3 * max(others),
        "close_s": time.perf_counter() - closing,
    }  # fmt: skip


def child(options: argparse.Namespace, folder: str) -> dict[str, float]:
    arguments = [f"--{name}={getattr(options, name)}" for name in ("model", "backend", "dtype", "prompt", "threads")]
    command = [sys.executable, __file__, "--child", f"--folder={folder}", *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def push_out(folder: str) -> None:
    """Have the system forget what it has read of a folder's files."""
    for path in Path(folder).iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="0.3B")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return
    print(f"{options.model}, {options.backend}, {options.dtype}, a prompt of {options.prompt:,} tokens")
    with tempfile.TemporaryDirectory() as folder:
        rows = [("computed and kept", child(options, folder))]
        for _ in range(options.rounds):
            if options.cold:
                push_out(folder)
            rows.append(("after a restart", child(options, folder)))
        kept = sum(path.stat().st_size for path in Path(folder).iterdir())
    for name, each in rows:
        print(
            f"  {name:18} first token {each['first_s']:7.3f} s, {each['cached']:5.0f} tokens cached, decode "
            f"{each['step_ms']:.0f} ms a step (worst {each['slowest_step_ms']:.0f}), closed in {each['close_s']:.2f} s"
        )
    ratio = rows[0][1]["first_s"] / median(each["first_s"] for name, each in rows if name == "after a restart")
    print(f"  {kept / 1e6:.0f} MB on disk; the first token comes {ratio:.1f} times as fast after a restart")


if __name__ == "__main__":
    main()
