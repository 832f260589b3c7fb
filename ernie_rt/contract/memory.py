"""Is there room? Asked before anything large is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from ernie_rt.contract.protocols import MemoryReport
from ernie_rt.display import human_bytes
from ernie_rt.errors import CapacityError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes of main memory that can be had without swapping, or None where the system does not say.

    Within a container that is what its limit leaves, page cache counted as free.
    """
    rooms = [room for room in (_system_memory(), _container_memory()) if room is not None]
    return min(rooms, default=None)


def _container_memory() -> int | None:
    """What a version 2 control group leaves of its limit, None where there is none."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None


def _system_memory() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def check_memory(report: MemoryReport, limit: int | None) -> None:
    """Raise CapacityError when weights and cache exceed the caller's limit or what the device has left."""
    room = available_memory() if report.available is None else report.available
    weights, cache = human_bytes(report.held_weight_bytes), human_bytes(report.cache_bytes)
    for bound, name in ((limit, "the memory limit"), (room, "the memory that is free")):
        if bound is not None and report.nbytes > bound:
            raise CapacityError(
                f"the model does not fit into {name}",
                expected=f"at most {human_bytes(bound)}",
                found=f"{weights} of weights and {cache} of cache",
                hint="Choose quantised weights, a narrower dtype, a shorter context, or a smaller model",
            )
