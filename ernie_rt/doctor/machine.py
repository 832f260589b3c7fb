"""The machine: cores, memory, huge pages, and what of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ernie_rt.contract import memory
from ernie_rt.contract.findings import Finding
from ernie_rt.contract.memory import available_memory, control_groups
from ernie_rt.display import human_bytes
from ernie_rt.doctor.report import Fact
from ernie_rt.planning.machine import cpu_quota, this_machine, usable_cores

SLOW_MEMORY: Final = 8e9
"""Bytes a second; a core of ten years ago reads more."""
READ_A_TOKEN: Final = 2e9
"""Bytes of weights and scales that a token of the 21B in int4 reads."""
THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that bound the threads of PyTorch and NumPy."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GIB: Final = 1 << 30
LITTLE_MEMORY: Final = 2 * GIB
"""Where less is free, the smallest published model in bfloat16, with a cache, finds no room."""
MUCH_SWAPPED: Final = GIB


def processor() -> Iterator[Fact | Finding]:
    """What the processor can do, and how fast memory is read, which is measured."""
    machine = this_machine()
    features = ", ".join(sorted(machine.features))
    yield Fact("processor", f"{machine.name}, with {features or 'none of the features that matter here'}")
    yield Fact("memory speed", f"{machine.bandwidth / 1e9:.1f} GB/s, read by all cores together")
    if platform.machine().lower() in ("x86_64", "amd64") and not {"avx512_vnni", "avx_vnni"} & machine.features:
        lacking = "AVX2" if "avx2" not in machine.features else "int8 dot products (AVX-512 VNNI, AVX-VNNI)"
        costs = "prompts are read at half the speed of newer processors, or less; answers wait for memory as there"
        yield Finding("remark", f"this processor has no {lacking}", costs)
    if machine.bandwidth < SLOW_MEMORY:
        seen = f"memory is read at {machine.bandwidth / 1e9:.1f} GB/s"
        costs = f"the 21B in int4 writes at most {machine.bandwidth / READ_A_TOKEN:.1f} tokens a second"
        advice = "See whether other programs, or other guests of this host, are at work; try again when they rest"
        yield Finding("slow", seen, costs, advice=advice)


def threads() -> Iterator[Fact | Finding]:
    """Cores that there are, that this process may use, and that its libraries would."""
    cores, usable, allowed, quota = os.cpu_count() or 1, usable_cores(), allowed_cores(), cpu_quota()
    said = f"{cores} core{'s' * (cores != 1)}"
    if usable < cores:
        said += f", of which this process may use {usable}"
    if usable < allowed:
        seen = f"this shell is bound to {usable} of {allowed} cores (its affinity)"
        costs = f"all that it starts computes at about {usable}/{allowed} of the speed"
        yield Finding("slow", seen, costs, f"taskset --all-tasks --cpu-list --pid 0-{cores - 1} $$")
    if quota is not None:
        said += f", for the time of {quota:g}"
    yield Fact("cores", said)
    if quota is not None and math.ceil(quota) < usable:
        first = math.ceil(quota) - 1
        yield Finding(
            "slow",
            f"a control group allows the time of {quota:g} cores, and {usable} are to be seen",
            "a thread for each of them is started, and all are stopped together when the time is used up",
            f"taskset --all-tasks --cpu-list --pid 0{f'-{first}' * (first > 0)} $$",
            f"Or ask for --threads {first + 1}, or raise the limit, as docker's --cpus does",
        )
    for variable in THREADS:
        given = os.environ.get(variable, "").partition(",")[0]
        if not given.isdecimal() or int(given) == usable:
            continue
        if int(given) < usable:
            costs = f"PyTorch and NumPy use {given} of {usable} cores; ONNX Runtime does not look at it"
        else:
            costs = f"PyTorch and NumPy start {given} threads on {usable} cores, which wait for one another"
        yield Finding("slow", f"{variable}={given}", costs, f"unset {variable}")


def room() -> Iterator[Fact | Finding]:
    """Main memory: how much there is, how much is left, what has been swapped out."""
    total, free = _meminfo("MemTotal"), available_memory()
    if total is not None and free is not None:
        yield Fact("memory", f"{human_bytes(total)}, of which {human_bytes(free)} can be had")
    limit = memory_limit()
    if limit is not None and total is not None and limit < total:
        seen = f"a control group allows {human_bytes(limit)} of this machine's {human_bytes(total)}"
        advice = "Raise the limit, as docker's --memory does"
        yield Finding("remark", seen, "a process that takes more is killed without a word", advice=advice)
    if free is not None and free < LITTLE_MEMORY:
        costs = "hardly a model fits; where one does, the system may swap"
        advice = "Close other programs, or take a model with --weights int4"
        yield Finding("slow", f"{human_bytes(free)} of memory can be had", costs, advice=advice)
    swap, left = _meminfo("SwapTotal"), _meminfo("SwapFree")
    if swap is not None and left is not None and swap - left > MUCH_SWAPPED:
        seen = f"{human_bytes(swap - left)} of memory are swapped out"
        costs = "where weights are among them, each token waits for the disk"
        yield Finding("remark", seen, costs, advice="Close other programs, or take a smaller model")
    if (space := address_space()) is not None:
        costs = "files cannot be mapped once it is used up, and loading fails without a good reason"
        yield Finding("slow", f"this shell bounds address space to {human_bytes(space)}", costs, "ulimit -v unlimited")


def huge_pages() -> Iterator[Finding]:
    """Whether Linux may keep large memory in pages of 2 MiB."""
    try:
        chosen = HUGE_PAGES.read_text()
    except OSError:
        return
    if "[never]" in chosen:
        sudo = "sudo " if os.geteuid() else ""
        seen = "transparent huge pages are off"
        costs = "decoding from large weights is up to a sixth slower: the processor looks up 512 times as many pages"
        command = f"echo madvise | {sudo}tee {HUGE_PAGES}"
        yield Finding("slow", seen, costs, command, "It holds until the machine starts anew")


def allowed_cores() -> int:
    """How many cores it could run on if it asked to: what binds a shell to some is a wish, what binds a container is
    none."""
    if not hasattr(os, "sched_getaffinity"):
        return usable_cores()
    bound = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return len(os.sched_getaffinity(0))
    except OSError:
        return len(bound)
    finally:
        os.sched_setaffinity(0, bound)


def memory_limit() -> int | None:
    """The least that control groups allow this process; None: there is no such limit."""
    found = []
    for group, version in control_groups("memory"):
        try:
            found.append(int((group / ("memory.limit_in_bytes" if version == 1 else "memory.max")).read_text()))
        except (OSError, ValueError):
            continue
    return min(found, default=None)


def address_space() -> int | None:
    """What this process may map at most; None: all that it likes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _meminfo(name: str) -> int | None:
    try:
        lines = memory.MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
