"""Check a graph that did not come out of a builder just now: read from JSON, or rewritten."""

from __future__ import annotations

from ernie_rt.errors import GraphError
from ernie_rt.graph.builder import infer
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import State, Value, Weight


def verify(graph: Graph) -> None:
    """Raise GraphError unless every value is defined once and before its use, every node obeys the shape rule of its
    op, every state is declared, weights of one name agree, and every output exists."""
    defined: dict[str, Value] = {}
    weights: dict[str, Weight] = {}
    states = {state.name: state for state in graph.states}
    for value in graph.inputs:
        if value.name in defined:
            raise GraphError(f"input {value} is declared twice", where=graph.name)
        defined[value.name] = value
    for node in graph.nodes:
        if node.op not in OPS:
            raise GraphError(f"there is no op {node.op!r}", where=node.scope)
        for operand in node.inputs:
            if isinstance(operand, Value) and defined.get(operand.name) != operand:
                raise GraphError(f"{node.op} reads {operand}, which nothing before it defines", where=node.scope)
            if isinstance(operand, Weight) and weights.setdefault(operand.name, operand) != operand:
                raise GraphError(f"weight {operand} is described in two ways", where=node.scope)
            if isinstance(operand, State) and states.get(operand.name) != operand:
                raise GraphError(f"state {operand} is not declared", where=node.scope)
        types = infer(node.spec, node.inputs, node.attributes, node.scope)
        if types != tuple(value.type for value in node.outputs):
            raise GraphError(
                f"{node.op} declares other outputs than its rule gives",
                where=node.scope,
                expected=", ".join(map(str, types)),
                found=", ".join(str(value.type) for value in node.outputs),
            )
        for value in node.outputs:
            if value.name in defined:
                raise GraphError(f"{value} is defined twice", where=node.scope)
            defined[value.name] = value
    for name, value in graph.outputs:
        if defined.get(value.name) != value:
            raise GraphError(f"output {name!r} is {value}, which nothing defines", where=graph.name)
