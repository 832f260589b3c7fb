"""How much of the processor others take while something is measured, as far as the system says so (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
IDLE: Final = slice(3, 5)
"""Of the fields of all processors' time: doing nothing, and waiting for a disk."""
GUESTS: Final = 8
"""The first field that counts what others count already."""


def busy_seconds() -> float | None:
    """Processor time of this machine since it started, of everybody together."""
    try:
        fields = [int(field) for field in STAT.read_text().split("\n", 1)[0].split()[1 : 1 + GUESTS]]
    except (OSError, ValueError):
        return None
    return (sum(fields) - sum(fields[IDLE])) / os.sysconf("SC_CLK_TCK")


def process_seconds(process: int) -> float:
    """Processor time of a process that lives; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Others:
    """Watches from when it is made: who else took processor time than this process, and `measured` in all."""

    def __init__(self, measured: float) -> None:
        self._began, self._busy, self._mine = time.perf_counter(), busy_seconds(), time.process_time() + measured

    def cores(self, measured: float) -> float | None:
        """How many cores others kept busy on average; None where the system does not say."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return None
        mine = time.process_time() + measured - self._mine
        return max(0.0, busy - self._busy - mine) / (time.perf_counter() - self._began)
