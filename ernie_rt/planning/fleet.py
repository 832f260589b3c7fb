"""Which cards and Macs hold a model: one of a kind, or several where one is too small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ernie_rt.contract.planner import Device
from ernie_rt.contract.protocols import MemoryReport
from ernie_rt.planning.device import room

MOST: Final = 16
"""Cards that are considered together: two machines of eight."""
RULE: Final = (
    "Several cards share a model by its heads: each has an equal part of all weights, its KV heads' part of the cache "
    "(where there are more cards than KV heads, several hold the same one), and a workspace of its own. So their "
    "number is a power of two that divides the query heads. ernie-rt itself runs a model on one device: several are "
    "what another runtime would need."
)


@dataclass(frozen=True, slots=True)
class Held:
    """A model on so many devices of a kind; `nbytes` are what one of them holds, `room` what it has for that."""

    device: Device
    count: int
    nbytes: int
    room: int

    @property
    def together(self) -> int:
        """Bytes of memory that all of them have."""
        return self.count * self.device.memory_bytes


def holders(bill: MemoryReport, query_heads: int, kv_heads: int, devices: Iterable[Device]) -> tuple[Held, ...]:
    """The devices that hold what a bill says: those that do so alone, smallest first, then as many cards of a kind as
    are needed, by the memory that they have together.

    Macs and CPUs are never several. `RULE` says how cards share a model.
    """
    found = [held for device in devices if (held := _fewest(bill, query_heads, kv_heads, device)) is not None]
    return tuple(sorted(found, key=lambda held: (held.count > 1, held.together, held.count, -held.device.bandwidth)))


def on_each(bill: MemoryReport, kv_heads: int, count: int) -> int:
    """Bytes on each of `count` cards that share a model."""
    own_heads = -(-kv_heads // count)
    return -(-bill.weight_bytes // count) + bill.cache_bytes * own_heads // kv_heads + bill.workspace_bytes


def counts(query_heads: int) -> Iterator[int]:
    """How many cards may share a model of so many heads: 1, 2, 4, …"""
    count = 1
    while count <= MOST and query_heads % count == 0:
        yield count
        count *= 2


def _fewest(bill: MemoryReport, query_heads: int, kv_heads: int, device: Device) -> Held | None:
    space = room(device)
    for count in counts(query_heads) if device.kind == "cuda" else (1,):
        nbytes = on_each(bill, kv_heads, count)
        if nbytes <= space:
            return Held(device, count, nbytes, space)
    return None
