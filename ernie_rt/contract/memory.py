"""Is there room? Asked before anything large is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ernie_rt.contract.protocols import MemoryReport
from ernie_rt.display import human_bytes
from ernie_rt.errors import CapacityError

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes of main memory that can be had without swapping, or None where the system does not say.

    Within a container that is what its limit leaves, page cache counted as free.
    """
    return min((room for room in (_system_memory(), *_group_memory()) if room is not None), default=None)


def control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The folder of each control group of this process that has a controller ("memory", "cpu"), and of each group
    around it, with the version of control groups that they are of, 1 or 2."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (GROUPS / controller, 1) if controllers else (GROUPS, 2)
        own = PurePosixPath(path.lstrip("/"))  # a container may see its own group as the root, and no other
        for group in dict.fromkeys((own, *own.parents, PurePosixPath())):
            yield root / group, version


def _group_memory() -> Iterator[int | None]:
    """What each control group leaves of its limit; None: it has none."""
    for group, version in control_groups("memory"):
        if version == 1:
            yield _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            yield _left(group, "memory.max", "memory.current", "inactive_file")


def _left(group: Path, limit_name: str, used_name: str, cache_name: str) -> int | None:
    try:
        limit, used = ((group / name).read_text().strip() for name in (limit_name, used_name))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(statistics[cache_name])
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
    """Raise CapacityError when weights and cache exceed the caller's limit, or they and the workspace what the device
    has left."""
    room = available_memory() if report.available is None else report.available
    found = f"{human_bytes(report.held_weight_bytes)} of weights and {human_bytes(report.cache_bytes)} of cache"
    if report.workspace_bytes:
        found += f", beside {human_bytes(report.workspace_bytes)} of workspace"
    sums = ((report.kept_bytes, limit, "the memory limit"), (report.nbytes, room, "the memory that is free"))
    for wanted, bound, name in sums:
        if bound is not None and wanted > bound:
            raise CapacityError(
                f"the model does not fit into {name}",
                expected=f"at most {human_bytes(bound)}",
                found=found,
                hint="Choose quantised weights, a narrower dtype, a shorter context, or a smaller model",
            )
