"""What a graph costs to run: FLOPs and bytes per node and in all, and how many parameters it has.

Costs take bindings for the symbolic axes, such as `{"N": 1, "C": 4096, "L": 1}`. FLOPs count a multiply and an add as
two. Bytes are those that must move at least once: weights as they are stored, and cache rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import decompose
from ernie_rt.graph.types import State, TensorType, Value, Weight

Bindings = Mapping[str, int]
EXPERTS = frozenset({"experts_gate_up", "experts_down"})
LOOKED_UP = frozenset({"table", "cos", "sin"})


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs, and bytes of weights and of cache rows."""

    flops: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.cache_bytes + other.cache_bytes,
        )


def graph_cost(graph: Graph, bindings: Bindings) -> Cost:
    """The sum over all nodes."""
    return sum((node_cost(node, bindings) for node in graph.nodes), Cost())


def node_cost(node: Node, bindings: Bindings) -> Cost:
    """The cost of one node run in one go."""
    weights = cache = 0
    for param, operand in node.operands.items():
        if isinstance(operand, Weight):
            weights += _weight_bytes(node, param, operand, bindings)
        elif isinstance(operand, State):
            rows = bindings["N"] + bindings["C"] if operand.type.dims[0] == "R" else 2  # a seat's is read and written
            cache += rows * operand.nbytes({**bindings, "R": 1, "S": 1})
    return Cost(flops(node, bindings), weights, cache)


def flops(node: Node, bindings: Bindings) -> int:
    """FLOPs of a node: a rule of its own for the ops that do less than they decompose into, else the sum of those."""
    if node.op == "attention":
        q = _operand_type(node, "q")
        new = q.shape(bindings)[0]
        context = new if node.operands["state"] is None else bindings["C"]
        pairs = new * context
        if node.operands["index"] is not None:  # one causal sequence whose context ends with the new tokens
            pairs -= new * (new - 1) // 2
        return 4 * pairs * math.prod(q.shape(bindings)[1:])
    if node.op == "moe_experts":
        gate_up = _operand_type(node, "experts_gate_up")
        _, width, _, hidden = gate_up.shape(bindings)
        pairs = _operand_type(node, "ids").elements(bindings)
        return pairs * (2 * 3 * hidden * width + 4 * width + 2 * hidden)
    if node.spec.decompose is not None:
        return sum(flops(child, bindings) for child in decompose(node)[0])
    if node.op == "matmul":
        inner = _operand_type(node, "a").shape(bindings)[-1]
        return 2 * inner * node.outputs[0].type.elements(bindings)
    if node.op in {"cast", "reshape", "transpose", "slice", "concat", "take_rows", "take_along", "cache_update"}:
        return 0
    return _elements(node, bindings)


def _elements(node: Node, bindings: Bindings) -> int:
    """One FLOP for each element read or written, whichever is more: right for elementwise ops and reductions."""
    sizes = [operand.type.elements(bindings) for operand in node.inputs if isinstance(operand, Value)]
    return max([*sizes, *(value.type.elements(bindings) for value in node.outputs)])


def _operand_type(node: Node, param: str) -> TensorType:
    operand = node.operands[param]
    assert operand is not None
    return operand.type


def _weight_bytes(node: Node, param: str, weight: Weight, bindings: Bindings) -> int:
    if param in LOOKED_UP:
        rows = weight.type.dims[0]
        whole = weight.nbytes({**bindings, "P": bindings["N"]})
        return whole if isinstance(rows, str) else whole * min(bindings["N"], rows) // rows
    if param in EXPERTS:
        experts = weight.type.shape(bindings)[0]
        return round(weight.nbytes(bindings) * distinct_experts(experts, _top_k(node), bindings["N"]) / experts)
    return weight.nbytes(bindings)


def _top_k(node: Node) -> int:
    value = node.attributes["top_k"]
    assert isinstance(value, int)
    return value


def distinct_experts(experts: int, top_k: int, tokens: int) -> float:
    """How many of `experts` a step of `tokens` is expected to touch when routing is uniform."""
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def parameters(graph: Graph) -> int:
    """All parameters, a tied weight once; computed tables are none."""
    return sum(weight.type.elements() for weight in graph.weights if weight.storage.stored)


def active_parameters(graph: Graph) -> int:
    """Parameters that take part in one token: of routed experts the top_k, everything else (embedding, head) whole."""
    active: dict[str, int] = {}
    for node in graph.nodes:
        for param, operand in node.operands.items():
            if isinstance(operand, Weight) and operand.storage.stored:
                elements = operand.type.elements()
                if param in EXPERTS:
                    elements = elements // operand.type.shape()[0] * _top_k(node)
                active[operand.name] = max(active.get(operand.name, 0), elements)
    return sum(active.values())
