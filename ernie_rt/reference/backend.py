"""The reference as a backend: always float64 inside; the dtype asked for is that of the logits."""

from __future__ import annotations

from collections.abc import Mapping

from ernie_rt.contract.contents import graphs_of
from ernie_rt.contract.protocols import Limits, MemoryReport, Target
from ernie_rt.contract.simple import SimpleBackend
from ernie_rt.graph.legalize import Lowering
from ernie_rt.reference.ops import MEANINGS
from ernie_rt.reference.planner import ReferencePlanner


class ReferenceBackend(SimpleBackend):
    """Runs every op, at every level, by its definition."""

    functions = MEANINGS
    dtype = "float64"

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        return ReferencePlanner().bill(graphs_of(lowerings), target, limits)
