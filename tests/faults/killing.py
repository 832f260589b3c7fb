"""Processes that write are killed, or interrupted as by Ctrl-C, at moments drawn at random."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.modeling.config import read_config
from ernie_rt.weights.folder import PROGRESS
from ernie_rt.weights.opening import open_weights
from faults.trials import Bench, start, told
from faults.writers import Writer, contents

KILLED: Final = {"quantize": 100, "export onnx": 100, "convert": 20, "run --weights int4": 20, "backends new": 20,
                 "a file": 20, "kept rows": 20, "batch": 20}  # fmt: skip
"""How often each is killed."""
INTERRUPTED: Final = ("quantize", "export onnx")
INTERRUPTS: Final = 25


def killing(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words; with a `share`, one kill in so many of writers that are quick."""
    rng = random.Random(1)
    figures = {"kills": 0, "old": 0, "new": 0, "files taken over": 0, "interrupts": 0}
    faults: list[str] = []
    for writer in writers:
        count = -(-KILLED.get(writer.name, 0) // (share or 1))
        if not count:
            continue
        bench = Bench(writer, base)
        seconds = min(_seconds(bench) for _ in range(1 if share else 3))
        killed = 0
        while killed < count:
            moment = rng.uniform(0, seconds)
            if _kill(bench, moment):
                killed += 1
                faults += [f"{writer.name}, killed after {moment:.4f} s: {fault}" for fault in _judge(bench, figures)]
        figures["kills"] += killed
        if writer.name in INTERRUPTED:
            for _ in range(-(-INTERRUPTS // (share or 1))):
                moment = rng.uniform(0, seconds)
                faults += [
                    f"{writer.name}, interrupted after {moment:.4f} s: {f}" for f in _stop(bench, moment, figures)
                ]
    return {**figures, "faults": faults}


def _seconds(bench: Bench) -> float:
    bench.clear()
    began = time.perf_counter()
    bench.run()
    return time.perf_counter() - began


def _kill(bench: Bench, moment: float) -> bool:
    """Whether it was still running then."""
    bench.clear()
    running = start(bench.writer, bench.given, bench.work, lambda: None, lambda: None)
    time.sleep(moment)
    os.kill(running[0], signal.SIGKILL)
    return told(running).code is None


def _stop(bench: Bench, moment: float, figures: dict[str, int]) -> Iterator[str]:
    """What is wrong after an interrupt: it is said in two lines at most, and nothing has changed."""

    def later() -> None:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, max(moment, 1e-6))

    bench.clear()
    ended = bench.run(later, lambda: signal.setitimer(signal.ITIMER_REAL, 0))
    if ended.code == 0 and bench.is_new():
        return
    figures["interrupts"] += 1
    begun = bool(ended.said or list(bench.work.iterdir()))
    if ended.code != 130 or ended.escaped or (begun and not ended.said.endswith("ernie-rt: interrupted\n")):
        yield f"exit code {ended.code}: {ended.said or ended.escaped}"
    yield from _judge(bench, figures)


def _judge(bench: Bench, figures: dict[str, int]) -> Iterator[str]:
    new = bench.is_new()
    figures["new" if new else "old"] += 1
    if not (new or bench.is_old() or bench.writer.kept or bench.writer.name == "batch"):
        yield "neither what was there nor what was to be written"
    partial = bench.out.with_name(f"{bench.out.name}.partial")
    if loads(partial) and contents(partial) != bench.new:
        yield "what is not whole is loaded"
    whole = _whole(partial)
    if not new or bench.writer.replaces or bench.writer.name == "batch":
        ended = bench.run()
        if ended.code != 0 or not bench.is_new():
            yield f"the next run does not end well: {ended.said or ended.escaped}"
        for name, file in whole.items():
            figures["files taken over"] += 1
            if (bench.out / name).stat().st_ino != file:
                yield f"{name} was whole, and is written again"
    if left := bench.left():
        yield f"the next run leaves {left}"


def loads(folder: Path) -> bool:
    """Whether a reader takes a folder for a model."""
    with suppress(ErnieRtError):
        open_weights(folder, read_config(folder)).close()
        return True
    return False


def _whole(partial: Path) -> dict[str, int]:
    """The files that an interrupted run knows to be whole, with their inodes."""
    try:
        names = json.loads((partial / PROGRESS).read_text())["shards"]
    except OSError:
        return {}
    return {name: (partial / name).stat().st_ino for name in names}
