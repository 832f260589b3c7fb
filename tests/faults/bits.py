"""One bit is changed at a place drawn at random, in each file of a folder in turn: `verify` finds it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import ErnieRtError
from ernie_rt.export import verify
from faults.trials import Bench
from faults.writers import Writer

FLIPS: Final = 500
"""Of each folder."""


def bits(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words; with a `share`, one flip in so many."""
    rng, faults = random.Random(2), []
    figures = {"folders": 0, "files": 0, "flips": 0, "found": 0}
    for writer in writers:
        if writer.name not in ("quantize", "convert", "export onnx"):
            continue
        bench = Bench(writer, base)
        assert bench.run().code == 0
        files = sorted(bench.out.iterdir())
        figures["folders"] += 1
        figures["files"] += len(files)
        for number in range(FLIPS // (share or 1)):
            path = files[number % len(files)]
            data = path.read_bytes()
            place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            figures["flips"] += 1
            if is_found(bench.out, path):
                figures["found"] += 1
            else:
                faults.append(f"{writer.name}: bit {bit} of byte {place} of {path.name}")
            path.write_bytes(data)
        verify(bench.out)
        shutil.rmtree(bench.work)
    return {**figures, "faults": faults}


def is_found(folder: Path, path: Path) -> bool:
    """Whether a folder is refused; or, of what no program reads, told that nobody has checked it."""
    try:
        verified = verify(folder)
    except ErnieRtError:
        return True
    return any(path.name in note for note in verified.notes)
