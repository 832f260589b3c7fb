"""What the reference holds, and how slow it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ernie_rt.contract.contents import PagedContents
from ernie_rt.contract.planner import Device, Rate, Rates, activation_bytes
from ernie_rt.contract.protocols import Limits, MemoryReport, Target
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DTYPES, Storage


class ReferencePlanner:
    """Everything in float64, whatever dtype the logits are in."""

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def bill(self, graphs: Mapping[str, Graph], target: Target, limits: Limits) -> MemoryReport:
        """The workspace is that of the largest step: composites make as much again as they hand on, and attention holds
        the scores of one head four times."""
        wider = DTYPES["float64"].size // DTYPES[target.dtype].size
        scores = limits.max_batch_tokens * limits.max_context * DTYPES["float64"].size
        report = PagedContents.of_graphs(graphs, limits).report("float64")
        return replace(report, workspace_bytes=2 * wider * activation_bytes(graphs, limits) + 4 * scores)

    def rates(self, target: Target, device: Device) -> Rates:
        """Of bytes and FLOPs in the dtype of the logits, although float64 is read and multiplied."""
        share = DTYPES[target.dtype].size / DTYPES["float64"].size
        return Rates(
            {target.dtype: Rate(0.5 * share, 0.25 * share, "float32")},
            cache=0.1 * share,
            step_seconds=500e-6,
            node_seconds=50e-6,
            source="estimated: NumPy in float64",
        )
