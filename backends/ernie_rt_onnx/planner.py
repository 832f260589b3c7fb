"""What is to be known of the backend before ONNX Runtime is imported: what it holds, and how fast it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ernie_rt.contract import (
    BlockQuantized,
    Device,
    Graph,
    Limits,
    MemoryReport,
    Operand,
    Rate,
    Rates,
    RopeTable,
    Storage,
    Target,
    Weight,
    activation_bytes,
    reading,
)
from ernie_rt_onnx.library import kernels

SESSION_BYTES: Final = 16 << 20
"""What a session takes beside its parameters: its graph, its threads, and what its arenas have to spare."""


MOST_READ: Final = 0.85
"""Of the bandwidth, while memory is what products with one row wait for."""
ONE_ROW: Final = 0.25
"""Bytes of blocks that such a product goes through, for each FLOP of a CPU's peak in float32: where memory is fast, it
is this that decides."""


class OnnxPlanner:
    """Slots of the longest context; weights in the dtype of activations, or in blocks, of which tiles stay in files."""

    def accepts(self, storage: Storage, target: Target) -> bool:
        """Tiles are the library's, which computes in float32 on the CPU."""
        if not isinstance(storage, BlockQuantized):
            return False
        return storage.layout == "raw" or (target.dtype == "float32" and not on_gpu(target) and kernels() is not None)

    def bill(
        self,
        graphs: Mapping[str, Graph],
        target: Target,
        limits: Limits,
        in_files: Collection[str] | None = None,
    ) -> MemoryReport:
        """What a model takes; `in_files` are the parts of weights that lie in files (None: those that may).

        Of these our operators read tiles where they lie. ONNX Runtime packs the others; raw experts, which the library
        reads in place as well, are counted as if it did.
        """
        bindings = {"P": limits.max_context, "R": slots(limits) * limits.max_context, "S": slots(limits)}
        states = {state.name: state for graph in graphs.values() for state in graph.states}
        held = mapped = 0
        for weight, forms in _weights(graphs):
            for part, type in weight.parts.items():
                if is_tiled(weight):
                    mapped += type.nbytes() if in_files is None or f"{weight.name}.{part}" in in_files else 0
                if not weight.storage.packed:
                    type = type.with_dtype(target.dtype if isinstance(weight.storage, RopeTable) else weight.type.dtype)
                held += type.nbytes(bindings) * (forms if part == "codes" else 1)
        return MemoryReport(
            held,
            sum(state.nbytes(bindings) for state in states.values()),
            workspace_bytes=2 * activation_bytes(graphs, limits) + SESSION_BYTES,
            mapped_bytes=mapped,
        )

    def rates(self, target: Target, device: Device) -> Rates:
        if on_gpu(target):
            return Rates(
                {
                    target.dtype: Rate(0.5, 0.4, target.dtype),
                    "int8": Rate(0.4, 0.3, target.dtype),
                    "int4": Rate(0.4, 0.3, target.dtype),
                },
                cache=0.4,
                step_seconds=500e-6,
                node_seconds=10e-6,
                source="estimated: no card has run it yet",
                has_run=False,
            )
        one_row = reading(device, "float32", most=MOST_READ, bytes_per_flop=ONE_ROW)
        blocks = Rate(one_row, 0.65, "int8" if "int8" in device.flops else "float32")
        return Rates(
            # ONNX Runtime widens weights in float16 as it loads them.
            {
                "float32": Rate(MOST_READ, 0.85, "float32"),
                "float16": Rate(0.4, 0.5, "float32"),
                "int8": blocks,
                "int4": blocks,
            },
            cache=0.37,
            step_seconds=400e-6,
            node_seconds=6e-6,
            source="two cores with AVX-512: set to int4 of the 0.3B and the 21B, docs/performance.md",
        )


def slots(limits: Limits) -> int:
    """Sequences that a cache has room for, each at its longest."""
    if limits.cache_tokens is None:
        return limits.max_sequences
    return max(1, min(limits.max_sequences, limits.cache_tokens // limits.max_context))


def on_gpu(target: Target) -> bool:
    return target.device.partition(":")[0] != "cpu"


def is_tiled(operand: Operand) -> bool:
    return (
        isinstance(operand, Weight)
        and isinstance(operand.storage, BlockQuantized)
        and operand.storage.layout == "tiled"
    )


def _weights(graphs: Mapping[str, Graph]) -> list[tuple[Weight, int]]:
    """Each weight, and in how many forms a session has its codes: raw ones have other dims where rows are looked up
    than where they are multiplied."""
    found: dict[str, tuple[Weight, set[bool]]] = {}
    for graph in graphs.values():
        for node in graph.nodes:
            for param, operand in node.operands.items():
                if isinstance(operand, Weight):
                    found.setdefault(operand.name, (operand, set()))[1].add(param == "table")
    return [
        (weight, len(roles) if weight.storage.packed and not is_tiled(weight) else 1)
        for weight, roles in found.values()
    ]
