"""The GPUs of this machine, as the driver's own tool describes them: neither PyTorch nor a CUDA context is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ernie_rt.contract.planner import Device
from ernie_rt.errors import OptionError
from ernie_rt.planning.device import GIB, MIB, find_device, room

PATIENCE: Final = 4.0
"""Seconds that a tool may take; one that asks a driver which is ill may wait for ever."""
SMI: Final = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")
QUERY: Final = ("--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits")


def nvidia_gpus() -> tuple[Device, ...]:
    """The cards that this process may use, in CUDA's order, with what a model can have of the memory that is free on
    each now.

    A card that the table does not know has a bandwidth of 0, which means that it is not known, and no peaks. There are
    none where the tool is absent, fails, or takes longer than `PATIENCE`.
    """
    tool = next(filter(None, map(shutil.which, SMI)), None)
    rows = [line.split(", ") for line in told([tool, *QUERY]).splitlines()] if tool is not None else []
    cards = {
        place: _with_room(replace(_found(name, "cuda"), memory_bytes=int(free) * MIB))
        for index, uuid, name, free in (row for row in rows if len(row) == 4)
        if index.isdecimal() and free.isdecimal() and (place := _place(index, uuid)) is not None
    }
    return tuple(cards[place] for place in sorted(cards))


def mac_gpu(chip: str, memory_bytes: int) -> tuple[Device, ...]:
    """The GPU of a Mac, by the name of its chip, with what Metal recommends of the memory; Intel's chips have none that
    computes. What the table does not know is as with cards."""
    if not chip.startswith("Apple"):
        return ()
    return (_with_room(replace(_found(f"{chip} {memory_bytes // GIB}GB", "mps"), memory_bytes=memory_bytes)),)


def told(command: Sequence[str]) -> str:
    """What a tool prints; nothing when it is absent, fails, or takes longer than `PATIENCE`."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError:
        return ""
    try:
        text, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # a driver that is ill may not even let it be killed
            process.communicate(timeout=1.0)
        return ""
    return text if process.returncode == 0 else ""


def _found(name: str, kind: str) -> Device:
    try:
        return find_device(name)
    except OptionError:
        return Device(name, kind, 0, 0.0, {}, "this machine; how fast such a device is, is not known")


def _with_room(device: Device) -> Device:
    return replace(device, memory_bytes=max(0, room(device)))


def _place(index: str, uuid: str) -> int | None:
    """Where a card comes among those that CUDA_VISIBLE_DEVICES, where it is set, names by their numbers or identifiers;
    None: it is hidden."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return int(index)
    names = enumerate(each.strip() for each in wanted.split(","))
    return next((i for i, name in names if name == index or (name.startswith("GPU-") and uuid.startswith(name))), None)
