"""What is to be known of eager before PyTorch is imported: what it holds, and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ernie_rt.contract import (
    Device,
    Graph,
    Limits,
    MemoryReport,
    PagedContents,
    Rate,
    Rates,
    Storage,
    Target,
    activation_bytes,
    reading,
)

LIBRARY_BYTES: Final = 12 << 20
"""What PyTorch's threads and libraries keep for themselves once they have run, on a CPU."""

ONE_ROW: Final = 0.045
"""Of a CPU's peak, what PyTorch's products with one row reach in bfloat16, however fast memory is."""
MOST_READ: Final = 0.55
"""Of the bandwidth, where memory is slow."""

NARROW: Final[Mapping[str, frozenset[str]]] = {
    "bfloat16": frozenset({"avx512_bf16", "amx", "bf16"}),
    "float16": frozenset({"amx_fp16"}),
}
"""The features of which one multiplies a dtype; a CPU that has none widens it number by number."""


class EagerPlanner:
    """Plain weights in the dtype of activations, in pages; the same on every device."""

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def bill(self, graphs: Mapping[str, Graph], target: Target, limits: Limits) -> MemoryReport:
        """The workspace is that of the largest step: beside what its composites hand on, each makes as much again."""
        workspace = 2 * activation_bytes(graphs, limits) + (LIBRARY_BYTES if target.device == "cpu" else 0)
        return replace(PagedContents.of_graphs(graphs, limits).report(), workspace_bytes=workspace)

    def rates(self, target: Target, device: Device) -> Rates:
        dtype = target.dtype
        if device.kind != "cpu":
            return Rates(
                {dtype: Rate(0.6, 0.5, dtype)},
                cache=0.4,
                step_seconds=500e-6,
                node_seconds=35e-6,
                source="estimated: eager passed the conformance suite on an H200, where its speed was not measured",
            )
        if dtype in NARROW and not NARROW[dtype] & device.features:
            return Rates(
                {dtype: Rate(0.2, 0.1, "float32")},
                cache=0.2,
                step_seconds=500e-6,
                node_seconds=35e-6,
                source=f"estimated: {dtype} on a CPU without instructions for it",
            )
        if dtype == "bfloat16":  # in which a product with one row has an operation for each byte of its weight
            rate = Rate(reading(device, dtype, most=MOST_READ, bytes_per_flop=ONE_ROW), 0.68, dtype)
            source = "two cores with AVX-512: set to the 0.3B, and held against four layers of the 21B"
        else:
            rate, source = Rate(0.75, 0.6, dtype), "estimated from products of PyTorch's in float32"
        return Rates({dtype: rate}, cache=0.4, step_seconds=500e-6, node_seconds=35e-6, source=source)
