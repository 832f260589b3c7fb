"""Make readable what the routers of a graph choose, and what they would choose without their correction bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Reject, legalize
from ernie_rt.graph.types import Value, Weight

ROUTERS: Final = frozenset({"moe_block", "moe", "moe_route"})
"""Ops that choose experts, themselves or inside."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router of a graph: where it is, and to how many of how many experts it sends a token."""

    scope: str
    experts: int
    top_k: int
    biased: bool
    masked: bool = False
    """It sends no other tokens than those of its pool."""

    @property
    def ids(self) -> str:
        """The tap of the expert ids `[N, A]`, the best score first, -1 for tokens of another pool."""
        return _mask_of(self.scope) if self.masked else self.scope

    @property
    def weights(self) -> str:
        return f"{self.scope}:1"

    @property
    def unbiased(self) -> str:
        """The tap of the expert ids that it would choose without its correction bias, for tokens of all pools."""
        return f"{self.scope}.unbiased" if self.biased else self.ids

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.ids, self.weights, self.unbiased)))


def open_routers(graph: Graph) -> tuple[Graph, tuple[Router, ...]]:
    """The graph with its routers as nodes of their own, and they, in the order in which they run.

    Beside each that has a correction bias stands one without, on the same input, for its choice to be tapped: whatever
    runs the graph makes that choice as it makes the other.
    """
    flat = legalize(graph, _whole).graph
    scopes = {node.scope for node in flat.nodes}
    nodes: list[Node] = []
    routers: list[Router] = []
    for node in flat.nodes:
        nodes.append(node)
        if node.op != "moe_route":
            continue
        x, gate, bias = node.inputs
        assert isinstance(gate, Weight)
        experts, top_k = gate.type.dims[0], node.attributes["top_k"]
        assert isinstance(experts, int) and isinstance(top_k, int)
        router = Router(node.scope, experts, top_k, bias is not None, _mask_of(node.scope) in scopes)
        routers.append(router)
        if router.biased:
            outputs = tuple(Value(f"{value.name}.unbiased", value.type) for value in node.outputs)
            nodes.append(replace(node, inputs=(x, gate, None), outputs=outputs, scope=router.unbiased))
    return replace(flat, nodes=tuple(nodes)), tuple(routers)


def _mask_of(route: str) -> str:
    """Where a router's choice is masked, if it is: beside where it is made."""
    return f"{route.removesuffix('route')}mask"


def _whole(node: Node) -> Accept | Reject:
    return Reject("it has a router inside") if node.op in ROUTERS - {"moe_route"} else Accept()
