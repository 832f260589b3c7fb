"""How much private memory loading takes beside the model, and how long.

Each model is loaded in a child process of its own, from a checkpoint folder, by eager; the peak of anonymous memory
is sampled every millisecond and set against the bytes that the model holds and those of its largest weight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import ernie_rt
from ernie_rt.cli.output import anonymous_bytes
from ernie_rt.graph.types import Plain


def measure(folder: Path, backend: str, dtype: str) -> dict[str, float | str]:
    """Load once, in this process."""
    from ernie_rt.host import PluginHost

    PluginHost().backend(backend)  # the library itself is not counted
    before = peak = anonymous_bytes()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.001):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    with ernie_rt.load(folder, backend=backend, dtype=dtype, max_context=512) as model:
        seconds = time.perf_counter() - began
        stop.set()
        watcher.join()
        report = model.memory()
        largest = max(w.type.nbytes() for w in model.graph.weights if isinstance(w.storage, Plain))
        return {
            "folder": folder.name,
            "dtype": model.choice.dtype,
            "seconds": seconds,
            "held_gb": report.weight_bytes / 1e9,
            "largest_weight_gb": largest / 1e9,
            "peak_gb": (peak - before) / 1e9,
            "peak_over_held_gb": (peak - before - report.weight_bytes) / 1e9,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="checkpoint folders")
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.folders[0], options.backend, options.dtype)))
        return
    for folder in options.folders:
        command = [sys.executable, __file__, str(folder), "--backend", options.backend, "--dtype", options.dtype]
        done = subprocess.run([*command, "--child"], check=True, capture_output=True, text=True)
        print(done.stdout, end="")


if __name__ == "__main__":
    main()
