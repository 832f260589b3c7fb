"""What a graph costs to run: FLOPs and bytes per node and in all, what is alive, and its parameters.

Costs take bindings for the symbolic axes, such as `{"N": 1, "C": 4096, "L": 1}`. FLOPs count a multiply and an add as
two. Bytes are those that must move at least once: weights as they are stored, and cache rows. Where a model sees, F
rows of features mean that F - 1 of the N tokens are vision, and have experts of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import decompose
from ernie_rt.graph.types import State, TensorType, Value, Weight

Bindings = Mapping[str, int]
EXPERTS = frozenset({"experts_gate_up", "experts_down"})
VISION_EXPERTS = frozenset({"vision_gate_up", "vision_down"})
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
    cache = 0
    for operand in node.inputs:
        if isinstance(operand, State):
            rows = bindings["N"] + bindings["C"] if operand.type.dims[0] == "R" else 2  # a seat's is read and written
            cache += rows * operand.nbytes({**bindings, "R": 1, "S": 1})
    return Cost(flops(node, bindings), sum(nbytes for _, nbytes in weights_read(node, bindings)), cache)


def weights_read(node: Node, bindings: Bindings) -> Iterator[tuple[Weight, int]]:
    """The weights that a node reads, and how many bytes of each."""
    for param, operand in node.operands.items():
        if isinstance(operand, Weight):
            yield operand, _weight_bytes(node, param, operand, bindings)


def alike(graph: Graph) -> Counter[Node]:
    """One node of each sort, with how many there are: nodes of one sort cost the same."""
    found: dict[object, Node] = {}
    counts: Counter[Node] = Counter()
    for node in graph.nodes:
        counts[found.setdefault(_sort(node), node)] += 1
    return counts


def composites(node: Node) -> tuple[Node, ...]:
    """The nodes that a block, or a `moe`, consists of; of others the node itself."""
    if node.spec.level != "block" and node.op != "moe":
        return (node,)
    return tuple(inner for child in decompose(node)[0] for inner in composites(child))


def live_bytes(graph: Graph, bindings: Bindings) -> int:
    """The most bytes of values that are alive at once while a graph runs composite by composite, its inputs aside.

    A value is, from the node that makes it to the last one that reads it.
    """
    return _most_alive(graph.nodes, frozenset(value.name for _, value in graph.outputs), {}, {}, bindings)


def _most_alive(
    nodes: Sequence[Node], kept: frozenset[str], alive: dict[str, int], known: dict[object, int], bindings: Bindings
) -> int:
    """The same of some nodes, before which values are `alive`; those that are `kept` live on. `known` are the most
    bytes within nodes."""
    values = ((place, operand) for place, node in enumerate(nodes) for operand in node.inputs)
    last = {operand.name: place for place, operand in values if isinstance(operand, Value)}
    most = 0
    for place, node in enumerate(nodes):
        staying = {name: size for name, size in alive.items() if name in kept or last.get(name, -1) > place}
        leaving = {name: size for name, size in alive.items() if name not in staying}
        most = max(most, sum(staying.values()) + _within(node, leaving, known, bindings))
        made = {value.name: value.type.nbytes(bindings) for value in node.outputs}
        alive = staying | {name: size for name, size in made.items() if name in kept or last.get(name, -1) > place}
    return most


def _within(node: Node, leaving: dict[str, int], known: dict[object, int], bindings: Bindings) -> int:
    """Of what a node makes, with those that it is the last to read."""
    read = tuple(isinstance(operand, Value) and operand.name in leaving for operand in node.inputs)
    if (sort := (_sort(node), read)) not in known:
        parts = composites(node)
        if parts == (node,):
            known[sort] = sum(leaving.values()) + sum(value.type.nbytes(bindings) for value in node.outputs)
        else:
            known[sort] = _most_alive(parts, frozenset({parts[-1].outputs[0].name}), leaving, known, bindings)
    return known[sort]


def _sort(node: Node) -> object:
    """What nodes have in common that cost the same."""
    operands = tuple(
        None if operand is None else (operand.type, getattr(operand, "storage", None)) for operand in node.inputs
    )
    return node.op, operands, tuple(node.attributes.items())


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
    if node.op == "moe_block" and node.operands["vision_mask"] is not None:
        served = {"mask": _served(node, bindings), "vision_mask": _served(node, bindings, vision=True)}
        return sum(
            flops(child, bindings if mask is None else {**bindings, "N": served[mask]})
            for child in decompose(node)[0]
            for mask in [next((name for name in served if node.operands[name] in child.inputs), None)]
        )
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
    if param in EXPERTS | VISION_EXPERTS:
        experts, tokens = weight.type.shape(bindings)[0], _served(node, bindings, vision=param in VISION_EXPERTS)
        return round(weight.nbytes(bindings) * distinct_experts(experts, _top_k(node), tokens) / experts)
    return weight.nbytes(bindings)


def _served(node: Node, bindings: Bindings, vision: bool = False) -> int:
    """How many new tokens a pool of experts serves: where there are two, those of pictures or the others."""
    seen = bindings["F"] - 1 if node.operands.get("vision_mask") is not None else 0
    return seen if vision else bindings["N"] - seen


def _top_k(node: Node) -> int:
    value = node.attributes["top_k"]
    assert isinstance(value, int)
    return value


def distinct_experts(experts: int, top_k: int, tokens: int) -> float:
    """How many of `experts` a step of `tokens` is expected to touch when routing is uniform."""
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def parameters(*graphs: Graph) -> int:
    """All parameters, a tied or a shared weight once; computed tables are none."""
    weights = {weight.name: weight for graph in graphs for weight in graph.weights}
    return sum(weight.type.elements() for weight in weights.values() if weight.storage.stored)


def active_parameters(graph: Graph, *, vision: bool = False) -> int:
    """Parameters that take part in one token of text, or of a picture: of the experts that serve such tokens the top_k,
    everything else (embedding, head) whole."""
    served, others = (VISION_EXPERTS, EXPERTS) if vision else (EXPERTS, VISION_EXPERTS)
    elsewhere = others | ({"gate", "correction_bias"} if vision else {"vision_gate", "vision_correction_bias"})
    active: dict[str, int] = {}
    for node in graph.nodes:
        for param, operand in node.operands.items():
            if isinstance(operand, Weight) and operand.storage.stored and param not in elsewhere:
                elements = operand.type.elements()
                if param in served:
                    elements = elements // operand.type.shape()[0] * _top_k(node)
                active[operand.name] = max(active.get(operand.name, 0), elements)
    return sum(active.values())
