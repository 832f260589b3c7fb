"""Devices to plan for: a sourced table of cards, CPUs and Macs, and how one is found by what people call it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import product
from typing import Any, Final

from ernie_rt.contract.planner import Device
from ernie_rt.display import human_bytes, nearest
from ernie_rt.errors import OptionError

__all__ = ["Device", "find_device", "known_devices", "room"]

MIB: Final = 1 << 20
GIB: Final = 1 << 30
CONTEXT_BYTES: Final = 640 * MIB
"""What a process takes of a card before it holds anything: the context that the driver and PyTorch's libraries make."""
NOISE: Final = re.compile(r"nvidia|geforce|rtx|amd|radeon|instinct|ryzen|intel|apple|generation|edition")
"""What people put into a name or leave out without meaning another device."""
OPTIONAL: Final = re.compile(r"\d+gb|pcie|sxm|blackwell|workstation")
"""What a name goes without while there is only one such device."""
SIZED: Final = re.compile(r"(.+?)[\s,]+(\d{1,5}) ?gi?b", re.IGNORECASE)


def known_devices() -> tuple[Device, ...]:
    """The table. Memory is what drivers report of a card, what is sold in a Mac, and the most that a CPU takes."""
    return tuple(device for device, _ in _table())


def find_device(name: str) -> Device:
    """The device that a name means, in any case, with or without spaces, hyphens and the maker: "RTX4090", "a100 40gb",
    "9950x", or as its driver spells it. A CPU may have the memory that comes with it: "Ryzen 9 9950X 64GB".

    OptionError with suggestions where there is none, and where there are several.
    """
    table = _table()
    fitting = _fitting(name, table)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise OptionError(
            f"{name!r} is the name of several devices", expected=" or ".join(device.name for device in fitting)
        )
    if sized := SIZED.fullmatch(name.strip()):
        cpus = [device for device in _fitting(sized[1], table) if device.kind == "cpu"]
        if len(cpus) == 1:
            return _with_memory(cpus[0], int(sized[2]) * GIB)
    keys = {"".join(_words(device.name)): device.name for device, _ in table}
    raise OptionError(
        f"no device {name[:80]!r} is known",
        hint=f"{nearest(''.join(_words(name)), keys)}`ernie-rt plan MODEL --device list` shows all",
    )


def room(device: Device) -> int:
    """Bytes that weights, cache and workspace may take of a device that has nothing else to do.

    Of a card that is all but `CONTEXT_BYTES`; of a Mac what Metal recommends at most, two thirds up to 32 GiB and three
    quarters of more; of a CPU all.
    """
    if device.kind == "cuda":
        return device.memory_bytes - CONTEXT_BYTES
    if device.kind == "mps":
        return device.memory_bytes * 2 // 3 if device.memory_bytes <= 32 * GIB else device.memory_bytes * 3 // 4
    return device.memory_bytes


def _fitting(name: str, table: Sequence[tuple[Device, list[str]]]) -> list[Device]:
    """The devices that are called so, or else those whose name leaves that when it is shortened."""
    wanted = "".join(_words(name))
    called = [device for device, names in table if any(wanted == "".join(_words(each)) for each in names)]
    return called or [device for device, names in table if wanted in _spellings(names[0])]


def _with_memory(device: Device, memory_bytes: int) -> Device:
    if not 0 < memory_bytes <= device.memory_bytes:
        raise OptionError(
            f"{device.name} does not take so much memory",
            expected=f"1 GiB to {human_bytes(device.memory_bytes)}",
            found=human_bytes(memory_bytes),
        )
    return replace(device, memory_bytes=memory_bytes)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", NOISE.sub(" ", name.casefold()))


def _spellings(name: str) -> Iterator[str]:
    """A name without its first words, and without any that are optional, as long as a number stays that is not."""
    words = _words(name)
    choices = [(word, "") if OPTIONAL.fullmatch(word) else (word,) for word in words]
    for kept in product(*choices):
        for start in range(len(kept)):
            if any(word[-1:].isdigit() or word[:1].isdigit() for word in kept[start:] if not OPTIONAL.fullmatch(word)):
                yield "".join(kept[start:])


def _table() -> list[tuple[Device, list[str]]]:
    """Each device with its names: its own, and what else drivers call it."""
    read: dict[str, Any] = json.loads((files(__package__) / "devices.json").read_text("utf-8"))
    return [
        (_device(entry, read["operations"], read["sources"]), [entry["name"], *entry.get("also", ())])
        for entry in read["devices"]
    ]


def _device(
    entry: Mapping[str, Any], operations: Mapping[str, Mapping[str, int]], sources: Mapping[str, str]
) -> Device:
    """An entry in bytes and FLOPs a second.

    Peaks are those of the data sheet, or what each kind of unit does in a cycle, times units and clock. The bandwidth
    of a CPU is that of its channels, 8 bytes wide each.
    """
    source = sources[entry["source"]]
    peaks = {dtype: tera * 1e12 for dtype, tera in entry.get("tflops", {}).items()}
    if units := entry.get("units"):
        dtypes = [dtype for dtype in operations[units[0][0]] if all(dtype in operations[kind] for kind, *_ in units)]
        peaks = {d: sum(operations[kind][d] * count * mhz * 1e6 for kind, count, mhz in units) for d in dtypes}
        source += "; peaks: " + " and ".join(f"{count} {kind} at {mhz} MHz" for kind, count, mhz in units)
    channels = entry.get("channels")
    return Device(
        name=entry["name"],
        kind=entry["kind"],
        memory_bytes=entry["memory_mib"] * MIB,
        bandwidth=channels * entry["megatransfers"] * 8e6 if channels else entry["bandwidth_gb"] * 1e9,
        flops=peaks,
        source=source,
        features=frozenset(entry.get("features", ())),
    )
