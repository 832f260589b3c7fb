"""Disks with less room than is needed: file systems of their own, of that size."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from faults.trials import Bench
from faults.writers import Writer

SHARES: Final = (0.1, 0.5, 0.99, 0.9999)
PAGE: Final = 4096


def full(base: Path, writers: Sequence[Writer], share: int | None) -> dict[str, Any]:
    """Figures, and faults in words. The process must be one that may mount."""
    figures = {"disks": 0, "refused before anything was written": 0, "too full for what is beside the weights": 0}
    faults: list[str] = []
    for writer in writers:
        bench = Bench(writer, base)
        assert bench.run().code == 0
        pages = sum(-(-path.stat().st_size // PAGE) for path in bench.work.rglob("*") if path.is_file())
        for part in SHARES:
            figures["disks"] += 1
            room = max(1, min(int(pages * part), pages - 1)) + bool(writer.replaces)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room * PAGE}", "none", bench.work], check=True)
            try:
                faults += [f"{writer.name}, {part:.2%} of the room: {fault}" for fault in _fill(bench, figures)]
            finally:
                subprocess.run(["umount", bench.work], check=True)
    return {**figures, "faults": faults}


def _fill(bench: Bench, figures: dict[str, int]) -> Iterator[str]:
    for path, data in bench.old.items():
        (bench.out / path).write_bytes(data)
    told = bench.run()
    if told.escaped:
        yield f"an exception that nobody caught: {told.escaped.splitlines()[-1]}"
    if told.code == 0 and not (bench.is_new() or bench.writer.kept):
        yield "said nothing, and what is there is not what was to be written"
    if told.code != 0 and not ("too little room" in told.said or "No space left" in told.said):
        yield f"the reason is not said: {told.said!r}"
    if told.code != 0 and not (bench.is_old() or bench.writer.kept or bench.writer.name == "batch"):
        yield "what was there before is not there any more"
    refused = "too little room" in told.said
    figures["refused before anything was written"] += refused
    figures["too full for what is beside the weights"] += not refused
    left = [name for name in bench.left() if refused or ".tmp" in name or not name.startswith("out.partial")]
    if left and not bench.writer.kept:
        yield f"left {left}"
