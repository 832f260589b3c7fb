"""What an executable with a paged cache must hold, worked out from its lowerings and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ernie_rt.contract.protocols import CacheShape, Limits, MemoryReport, StepLimits
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import Lowering
from ernie_rt.graph.types import DType, State, Weight

PAGE_SIZE = 16


@dataclass(frozen=True, slots=True)
class PagedContents:
    """Weights and states of all graphs by name, the shape of the cache, and what binds the axes P, R and S."""

    weights: Mapping[str, Weight]
    states: Mapping[str, State]
    cache: CacheShape
    admits: StepLimits
    bindings: Mapping[str, int]

    @classmethod
    def of(cls, lowerings: Mapping[str, Lowering], limits: Limits) -> PagedContents:
        """Those of lowered graphs."""
        return cls.of_graphs(graphs_of(lowerings), limits)

    @classmethod
    def of_graphs(cls, named: Mapping[str, Graph], limits: Limits) -> PagedContents:
        """Pages enough for the rows that the limits ask for; any mixture of prefills and decodes."""
        graphs = named.values()
        longest = -(-limits.max_context // PAGE_SIZE)
        pages = longest * limits.max_sequences
        if limits.cache_tokens is not None:
            pages = max(longest, min(pages, -(-limits.cache_tokens // PAGE_SIZE)))
        return cls(
            weights={weight.name: weight for graph in graphs for weight in graph.weights},
            states={state.name: state for graph in graphs for state in graph.states},
            cache=CacheShape("paged", PAGE_SIZE, pages),
            admits=StepLimits(limits.max_batch_tokens, limits.max_sequences),
            bindings={"P": limits.max_context, "R": pages * PAGE_SIZE, "S": limits.max_sequences},
        )

    def report(self, dtype: DType | None = None) -> MemoryReport:
        """The bytes of it all, in the graph's dtypes and as packed as it says, or all in one dtype."""

        def nbytes(held: Weight | State) -> int:
            if dtype is not None:
                return held.type.with_dtype(dtype).nbytes(self.bindings)
            return (held if held.storage.packed else held.type).nbytes(self.bindings)

        return MemoryReport(sum(map(nbytes, self.weights.values())), sum(map(nbytes, self.states.values())))


def graphs_of(lowerings: Mapping[str, Lowering]) -> dict[str, Graph]:
    """The lowered graphs by name, as a `Planner` bills them."""
    return {name: lowering.graph for name, lowering in lowerings.items()}
