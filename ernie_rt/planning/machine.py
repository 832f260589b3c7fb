"""This machine as a device to plan for: what its system says of it, and what was measured."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ernie_rt.contract.memory import available_memory, control_groups
from ernie_rt.contract.planner import Device
from ernie_rt.planning.device import MIB
from ernie_rt.planning.gpus import mac_gpu, nvidia_gpus, told

CPUINFO: Final = Path("/proc/cpuinfo")
CPUS: Final = Path("/sys/devices/system/cpu")
LINUX: Final[Mapping[str, str]] = {
    "avx2": "avx2", "avx_vnni": "avx_vnni", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16", "amx_tile": "amx", "asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm",
    "bf16": "bf16",
}  # fmt: skip
"""The features that matter here, by their names in /proc/cpuinfo."""
DARWIN: Final[Mapping[str, str]] = {
    "hw.optional.avx2_0": "avx2", "hw.optional.avx512f": "avx512f", "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod", "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}  # fmt: skip
"""By their names in sysctl."""
WINDOWS: Final[Mapping[int, str]] = {40: "avx2", 41: "avx512f", 43: "dotprod"}
"""By their numbers for IsProcessorFeaturePresent."""
NARROWER: Final[Sequence[tuple[str, str, int]]] = (
    ("amx", "bfloat16", 16), ("avx512_bf16", "bfloat16", 2), ("bf16", "bfloat16", 4), ("amx", "int8", 32),
    ("avx512_vnni", "int8", 4), ("avx_vnni", "int8", 4), ("i8mm", "int8", 8), ("dotprod", "int8", 4),
)  # fmt: skip
"""How many products of a narrower type the instructions of a feature do in the time of one of float32; the first that
is there counts."""
PASS_BYTES: Final = 256 * MIB
MOST_THREADS: Final = 64


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU as its system describes it: name, the cores that this process may use (those that it is bound to, and no
    more than its control groups pay for), features, bytes of main memory."""

    name: str
    cores: int
    features: frozenset[str]
    memory_bytes: int


@cache
def this_machine() -> Device:
    """This machine's CPU, with the memory that is free now. Its peaks are measured, in about 0.3 s, once a process."""
    from ernie_rt.planning.measuring import product_flops, read_bandwidth

    cpu = this_cpu()
    free = available_memory()
    if free is None:
        free = cpu.memory_bytes
    threads = min(cpu.cores, MOST_THREADS)
    flops = {"float32": product_flops()}
    for feature, dtype, times in NARROWER:
        if feature in cpu.features:
            flops.setdefault(dtype, flops["float32"] * times)
    return Device(
        name=cpu.name,
        kind="cpu",
        memory_bytes=free,
        bandwidth=read_bandwidth(threads, max(MIB, min(max(PASS_BYTES, 3 * cache_bytes()), free // 8))),
        flops=flops,
        source=f"this machine: memory that is free; bandwidth of reading on {threads} threads, measured; peaks by a "
        "product of NumPy's in float32, measured, and what the CPU's instructions do more in narrower types",
        features=cpu.features,
    )


def these_gpus() -> tuple[Device, ...]:
    """The GPUs of this machine, with the memory that can be had of each now."""
    if sys.platform == "darwin":
        cpu = this_cpu()
        return mac_gpu(cpu.name, cpu.memory_bytes)
    return nvidia_gpus()


def this_cpu() -> Cpu:
    """The CPU of this machine; what its system does not say of it is left out."""
    if sys.platform == "darwin":
        name, features, memory = _darwin()
    elif sys.platform == "win32":
        name, features, memory = _windows(ctypes.windll.kernel32)
    else:
        name, features = _linux(CPUINFO)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores, quota = usable_cores(), cpu_quota()
    if quota is not None:
        cores = max(1, min(cores, round(quota)))
    return Cpu(name or platform.processor() or platform.machine(), cores, frozenset(features), memory)


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota() -> float | None:
    """For the time of how many cores control groups let this process compute; None: there is no such limit."""
    found = []
    for group, version in control_groups("cpu"):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version == 1 else ("cpu.max",)
        try:
            quota, period = " ".join((group / name).read_text().strip() for name in names).split()
            if quota not in ("max", "-1"):
                found.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(found, default=None)


def cache_bytes() -> int:
    """Bytes of the last caches of all cores together; 0 where the system does not say."""
    caches: dict[str, int] = {}
    for folder in CPUS.glob("cpu[0-9]*/cache/index3"):
        with suppress(OSError, ValueError):
            size = (folder / "size").read_text().strip()
            caches[(folder / "shared_cpu_list").read_text()] = int(size.removesuffix("K")) << 10
    return sum(caches.values())


def _linux(file: Path) -> tuple[str, Iterable[str]]:
    """Name and features; ARM's kernels call the features so, and give no name."""
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return "", ()
    said: dict[str, str] = dict(re.findall(r"^(model name|flags|Features)[ \t]*: *(.*)$", text, re.MULTILINE))
    flags = said.get("flags", said.get("Features", "")).split()
    return said.get("model name", "").strip(), [LINUX[flag] for flag in flags if flag in LINUX]


def _darwin() -> tuple[str, Iterable[str], int]:
    lines = told(["sysctl", "machdep.cpu.brand_string", "hw.memsize"]).splitlines()
    lines += [line for key in DARWIN for line in told(["sysctl", key]).splitlines()]  # an unknown key fails them all
    said = dict(line.split(": ", 1) for line in lines if ": " in line)
    features = [feature for key, feature in DARWIN.items() if said.get(key) == "1"]
    return said.get("machdep.cpu.brand_string", ""), features, int(said.get("hw.memsize", 0))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX"""

    _fields_ = (
        ("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64), ("others", ctypes.c_uint64 * 5),
    )  # fmt: skip


def _windows(kernel32: ctypes.CDLL) -> tuple[str, Iterable[str], int]:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    features = [feature for number, feature in WINDOWS.items() if kernel32.IsProcessorFeaturePresent(number)]
    return platform.processor(), features, status.total
