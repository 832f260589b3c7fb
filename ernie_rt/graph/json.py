"""Graphs as JSON, both ways.

A weight is written once, in a table; values are written where they are defined and named where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from ernie_rt.errors import GraphError
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.types import (
    Attr,
    Blocks,
    Operand,
    Plain,
    RopeTable,
    State,
    Storage,
    TensorType,
    Value,
    Weight,
    blocks_of,
    dtype_of,
)
from ernie_rt.graph.verify import verify

FORMAT: Final = 1


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as plain dicts, lists, strings and numbers."""
    return {
        "format": FORMAT,
        "name": graph.name,
        "inputs": [_declared(value) for value in graph.inputs],
        "states": [_declared(state) for state in graph.states],
        "weights": [_declared(weight) | {"storage": storage_to_json(weight.storage)} for weight in graph.weights],
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


def graph_from_json(data: Mapping[str, Any]) -> Graph:
    """The graph that `graph_to_json` wrote, verified; GraphError for anything else."""
    try:
        graph = _read(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"not a graph in JSON: {type(error).__name__}: {error}") from error
    verify(graph)
    return graph


def _read(data: Mapping[str, Any]) -> Graph:
    if data["format"] != FORMAT:
        raise GraphError("a graph of another format", expected=FORMAT, found=data["format"])
    known: dict[str, Operand] = {}

    def declare(operand: Value | State | Weight) -> Any:
        known[str(operand)] = operand
        return operand

    inputs = tuple(declare(Value(v["name"], _type(v))) for v in data["inputs"])
    states = tuple(declare(State(s["name"], _type(s))) for s in data["states"])
    for w in data["weights"]:
        declare(Weight(w["name"], _type(w), storage_from_json(w["storage"])))
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


def storage_to_json(storage: Storage) -> dict[str, Any]:
    """A storage as a plain dict."""
    if isinstance(storage, Plain):
        return {"kind": "plain", "dtype": storage.dtype}
    if isinstance(storage, Blocks):
        return {"kind": "blocks", "bits": storage.bits, "block": storage.block, "layout": storage.layout}
    return {
        "kind": "rope",
        "function": storage.function,
        "theta": storage.theta,
        "compression_ratio": storage.compression_ratio,
    }


def storage_from_json(data: Mapping[str, Any]) -> Storage:
    """The storage that `storage_to_json` wrote; KeyError, TypeError, ValueError or GraphError for anything else."""
    if data["kind"] == "plain":
        return Plain(dtype_of(data["dtype"]))
    if data["kind"] == "rope" and data["function"] in ("cos", "sin"):
        return RopeTable(data["function"], float(data["theta"]), float(data["compression_ratio"]))
    if data["kind"] == "blocks":
        return blocks_of(data["bits"], data["block"], data["layout"])
    raise GraphError(f"unknown storage {data['kind']!r}", expected="plain, rope or blocks")
