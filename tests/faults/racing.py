"""Two that write the same at once, and one that reads what another writes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ernie_rt.errors import ErnieRtError
from ernie_rt.export import verify
from faults.trials import Bench, start, told
from faults.writers import Writer, contents

PAIRS, EXPORTS = 20, 50


def racing(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words; with a `share`, one in so many."""
    figures, faults = {"pairs": 0, "exports": 0, "readings": 0, "of them whole": 0}, []
    for writer in writers:
        if writer.name not in ("quantize", "export onnx", "backends new", "a file", "a new file"):
            continue
        bench = Bench(writer, base)
        for _ in range(-(-PAIRS // (share or 1))):
            figures["pairs"] += 1
            faults += [f"two of {writer.name}: {fault}" for fault in _two(bench)]
        if writer.name == "export onnx":
            _read_while_written(bench, -(-EXPORTS // (share or 1)), figures, faults)
    return {**figures, "faults": faults}


def _two(bench: Bench) -> list[str]:
    bench.clear()
    both = [start(bench.writer, bench.given, bench.work, lambda: None, lambda: None) for _ in range(2)]
    ended = [told(each) for each in both]
    faults = [f"an exception that nobody caught: {each.escaped}" for each in ended if each.escaped]
    lost = [each for each in ended if each.code != 0]
    reasons = ("another process is writing it", "File exists", "cannot be written")
    if len(lost) != (0 if bench.writer.replaces else 1):
        faults.append(f"not as many as should have written it: {ended}")
    faults += [f"the reason is not said: {each}" for each in lost if not any(r in each.said for r in reasons)]
    if not bench.is_new():
        faults.append("what is there is not what was to be written")
    return faults + ([f"left {left}"] if (left := bench.left()) else [])


def _read_while_written(bench: Bench, count: int, figures: dict[str, int], faults: list[str]) -> None:
    """Folders are exported one after another; a process reads whatever has its name, over and over."""
    bench.clear()
    places = [bench.work / f"{number}" for number in range(count)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        seen = whole = 0
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True

        signal.signal(signal.SIGTERM, stop)
        last = False
        while not last:
            last = stopped  # what was written until then is read once more
            for place in places:
                if place.exists():
                    seen += 1
                    try:
                        verify(place)
                        whole += contents(place) == bench.new
                    except ErnieRtError:
                        pass
        os.write(writing, f"{seen} {whole}".encode())
        os._exit(0)
    os.close(writing)
    for place in places:
        told(start(bench.writer, bench.given, bench.work, lambda: None, lambda: None))
        bench.out.rename(place)
    os.kill(child, signal.SIGTERM)
    with os.fdopen(reading) as pipe:
        seen, whole = map(int, pipe.read().split())
    os.waitpid(child, 0)
    figures["exports"] += count
    figures["readings"] += seen
    figures["of them whole"] += whole
    if seen != whole:
        faults.append(f"{seen - whole} of {seen} readings found what was not whole")
