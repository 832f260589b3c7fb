"""Devices as they usually are: to compare backends on one, which takes no measuring."""

from __future__ import annotations

from typing import Final

from ernie_rt.contract.planner import Device
from ernie_rt.planning.machine import NARROWER, this_cpu

BANDWIDTH: Final = 25e9
"""Bytes a second that a usual CPU reads: two cores of a server, or all of a laptop."""
CORE_FLOPS: Final = 100e9
MOST_CORES: Final = 16
GPU_BANDWIDTH: Final = 1e12
GPU_FLOPS: Final = {"float16": 2e14, "bfloat16": 2e14, "float32": 5e13, "int8": 4e14}


def usual_device(kind: str) -> Device:
    """This machine's CPU by its features, with usual figures; a usual GPU for another kind."""
    if kind != "cpu":
        return Device(f"a device of kind {kind}", kind, 0, GPU_BANDWIDTH, GPU_FLOPS, "usual figures")
    cpu = this_cpu()
    peak = CORE_FLOPS * min(cpu.cores, MOST_CORES)
    flops = {"float32": peak}
    for feature, dtype, times in NARROWER:
        if feature in cpu.features:
            flops.setdefault(dtype, peak * times)
    return Device(cpu.name, kind, cpu.memory_bytes, BANDWIDTH, flops, "usual figures", cpu.features)
