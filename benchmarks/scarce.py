"""A model larger than memory: the onnx backend in a control group that has so much of it, page cache included.

    python benchmarks/scarce.py 21B-A3B --memory 6.5 --prompt 256 --new 32

Each run is a process of its own that begins with nothing of the model's files in memory. Weights are random, in the
exact shapes. Linux lets root make such a group.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ernie_rt.cli.output import say, write
from ernie_rt.planning.machine import usable_cores
from ernie_rt.weights.quantize import Quantization
from ernie_rt_bench.contenders import Given, ours
from ernie_rt_bench.models import random_folder
from ernie_rt_bench.report import machine, report_json, report_text, versions
from ernie_rt_bench.rounds import measure
from ernie_rt_bench.workload import Report, Result, Workload


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group whose processes have `limit` bytes together."""
    root, name = Path("/sys/fs/cgroup"), f"ernie-rt-{os.getpid()}"
    unified = (root / "cgroup.controllers").exists()
    group = root / name if unified else root / "memory" / name
    try:
        group.mkdir()
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as problem:
        raise SystemExit(f"it takes a control group for memory, which root may make: {problem}") from None
    try:
        yield group
    finally:
        group.rmdir()


def forget(folder: Path) -> None:
    """Have memory hold nothing of a folder's files."""
    os.sync()  # what was not written yet cannot leave memory
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", type=float, metavar="GB", required=True)
    parser.add_argument("--weights", choices=("int4", "int8"), default="int4")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where the model is written, and kept")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    workload = Workload((given.prompt,), given.new, 1, usable_cores())
    with tempfile.TemporaryDirectory() as scratch, memory_group(int(given.memory * 1e9)) as group:
        work = given.work or Path(scratch)
        options = {"device": "cpu", "dtype": "float32", "threads": workload.threads}
        asked = Given(given.model, None, given.weights, work, options)
        how = Quantization(4 if given.weights == "int4" else 8, layout="tiled")
        folder = random_folder(work, given.model, None, how).folder
        assert folder is not None
        results: list[Result] = []
        for _ in range(given.runs):
            forget(folder)
            join = ("sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh")
            results += measure([*ours(["onnx"], asked, workload, join)], workload, say)
    report = Report(f"{given.model} in {given.memory} GB", machine(), versions(), workload, tuple(results))
    write(report_json(report) if given.json else report_text(report))


if __name__ == "__main__":
    main()
