"""Graphs as JSON, both ways.

A weight is written once, in a table; values are written where they are defined and named where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from ernie_rt.errors import GraphError
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.types import Attr, Operand, State, Storage, TensorType, Value, Weight, dtype_of
from ernie_rt.graph.verify import verify

FORMAT: Final = 2

Storages = Mapping[str, type[Storage]]
"""Storages by the names of their kinds."""


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as plain dicts, lists, strings and numbers."""
    return {
        "format": FORMAT,
        "name": graph.name,
        "inputs": [_declared(value) for value in graph.inputs],
        "states": [_declared(state) | {"storage": state.storage.to_json()} for state in graph.states],
        "weights": [
            _declared(weight) | {"storage": weight.storage.to_json(), "paired": weight.paired}
            for weight in graph.weights
        ],
        "nodes": [
            {
                "op": node.op,
                "scope": node.scope,
                "inputs": [None if operand is None else str(operand) for operand in node.inputs],
                "attrs": {name: list(v) if isinstance(v, tuple) else v for name, v in node.attrs},
                "outputs": [_declared(value) for value in node.outputs],
            }
            for node in graph.nodes
        ],
        "outputs": {name: str(value) for name, value in graph.outputs},
    }


def graph_from_json(data: Mapping[str, Any], storages: Storages) -> Graph:
    """The graph that `graph_to_json` wrote, verified; GraphError for anything else.

    It may have these `storages`; those that come along are `ernie_rt.weights.manifest.STORAGES`.
    """
    try:
        graph = _read(data, storages)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"not a graph in JSON: {type(error).__name__}: {error}") from error
    verify(graph)
    return graph


def _read(data: Mapping[str, Any], storages: Storages) -> Graph:
    if data["format"] != FORMAT:
        raise GraphError("a graph of another format", expected=FORMAT, found=data["format"])
    known: dict[str, Operand] = {}

    def declare(operand: Value | State | Weight) -> Any:
        known[str(operand)] = operand
        return operand

    inputs = tuple(declare(Value(v["name"], _type(v))) for v in data["inputs"])
    states = tuple(
        declare(State(s["name"], _type(s), storage_from_json(s["storage"], storages))) for s in data["states"]
    )
    for w in data["weights"]:
        declare(Weight(w["name"], _type(w), storage_from_json(w["storage"], storages), w["paired"] is True))
    nodes = []
    for n in data["nodes"]:
        operands = tuple(None if name is None else known[name] for name in n["inputs"])
        attrs = tuple((name, cast(Attr, tuple(v) if isinstance(v, list) else v)) for name, v in n["attrs"].items())
        outputs = tuple(declare(Value(v["name"], _type(v))) for v in n["outputs"])
        nodes.append(Node(n["op"], operands, attrs, outputs, n["scope"]))
    return Graph(
        data["name"],
        inputs,
        states,
        tuple(nodes),
        tuple((k, cast(Value, known[v])) for k, v in data["outputs"].items()),
    )


def _declared(operand: Value | State | Weight) -> dict[str, Any]:
    return {"name": operand.name, "dtype": operand.type.dtype, "dims": list(operand.type.dims)}


def _type(data: Mapping[str, Any]) -> TensorType:
    return TensorType(dtype_of(data["dtype"]), tuple(data["dims"]))


def storage_from_json(data: Mapping[str, Any], storages: Storages) -> Storage:
    """The storage that wrote this; KeyError, TypeError, ValueError or GraphError for anything else."""
    if data["kind"] not in storages:
        raise GraphError(f"unknown storage {data['kind']!r}", expected=f"one of {', '.join(storages)}")
    return storages[data["kind"]].from_json(data)
