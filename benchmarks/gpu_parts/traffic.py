"""What a step must move and multiply, counted from the graph and from the experts that were chosen."""

from __future__ import annotations

from collections.abc import Sequence

from ernie_rt.graph.cost import EXPERTS, distinct_experts, graph_cost
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.types import Weight


def moe_nodes(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "moe_block"]


def expert_bytes(node: Node) -> int:
    """Of one expert of a layer."""
    weights = [operand for name, operand in node.operands.items() if name in EXPERTS]
    return sum(weight.nbytes() // num_experts(node) for weight in weights if isinstance(weight, Weight))


def num_experts(node: Node) -> int:
    gate = node.operands["gate"]
    assert gate is not None and isinstance(gate.type.dims[0], int)
    return gate.type.dims[0]


def decode_bytes(graph: Graph, rows: int, context: int, seen: Sequence[float]) -> float:
    """What a step of decodes reads and writes of weights and cache, each sequence with `context` tokens, the new one
    counted. `seen` is how many different experts each layer that has some was seen to choose."""
    bindings = {"N": rows, "C": rows * context, "L": rows}
    cost = graph_cost(graph, bindings)
    nodes = moe_nodes(graph)
    assert len(seen) == len(nodes), "a number for each layer with experts"
    total: float = cost.weight_bytes + cost.cache_bytes
    for node, distinct in zip(nodes, seen, strict=True):
        top_k = node.attributes["top_k"]
        assert isinstance(top_k, int)
        total += (distinct - distinct_experts(num_experts(node), top_k, rows)) * expert_bytes(node)
    return total


def prompt_flops(graph: Graph, tokens: int, at_once: int) -> int:
    """FLOPs of a prompt in steps of so many tokens, with the logits of each step's last one."""
    return sum(
        graph_cost(graph, {"N": min(at_once, tokens - past), "C": min(past + at_once, tokens), "L": 1}).flops
        for past in range(0, tokens, at_once)
    )
