"""What is to be known of cudagraph before PyTorch and Triton are imported: what it holds, and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ernie_rt.contract import Device, Graph, Limits, MemoryReport, Node, PagedContents, Rate, Rates, Target, TensorType
from ernie_rt_eager.planner import EagerPlanner

LARGEST: Final = 512
"""Sequences in the largest graph; a step of more runs kernel by kernel."""


class CudaGraphPlanner(EagerPlanner):
    """Weights and pages as eager has them."""

    def bill(self, graphs: Mapping[str, Graph], target: Target, limits: Limits) -> MemoryReport:
        """Beside weights and cache the logits of recorded steps, and what experts leave of the longest step. What else
        graphs take is known once they are recorded."""
        rows = buckets(limits.max_sequences)[-1]
        outputs = [output for graph in graphs.values() for output in graph.outputs]
        logits = [rows * value.type.nbytes({"L": 1}) for name, value in outputs if name == "logits"]
        blocks = [node for graph in graphs.values() for node in graph.nodes if node.op == "moe_block"]
        experts = [scratch_bytes(node, limits.max_batch_tokens) for node in blocks]
        report = PagedContents.of_graphs(graphs, limits).report()
        return replace(report, workspace_bytes=max(logits, default=0) + max(experts, default=0))

    def rates(self, target: Target, device: Device) -> Rates:
        seen = "an H200: the 0.3B and the 21B in bfloat16"
        return Rates(
            {target.dtype: Rate(0.7, 0.45, target.dtype)},
            cache=0.6,
            step_seconds=100e-6,
            node_seconds=1e-6,
            source=seen if target.dtype == "bfloat16" else f"estimated from {seen}",
        )


def buckets(most: int) -> tuple[int, ...]:
    """How many rows graphs have, so that any number of sequences up to `most` finds one that is not much larger."""
    sizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, *range(160, 256, 32), *range(256, LARGEST + 1, 64)]
    return tuple(size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] < most)


def scratch_bytes(node: Node, tokens: int) -> int:
    """What the experts of a block leave in memory before they are combined, of a step of so many tokens."""
    x, top_k = node.operands["x"], node.attributes["top_k"]
    assert x is not None and isinstance(top_k, int)
    pools = [down.type.shape({}) for name in ("experts_down", "vision_down") if (down := node.operands[name])]
    numbers = max(hidden + width for _, hidden, width in pools)  # one pool comes after the other
    return TensorType(x.type.dtype, (tokens, top_k, numbers)).nbytes()
