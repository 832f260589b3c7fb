"""Print a graph for people."""

from __future__ import annotations

import re

from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.types import Operand, Weight


def graph_text(graph: Graph, *, fold: bool = False) -> str:
    """The whole graph, a line a node; a weight under the node's own scope is written `@.name`.

    With `fold`, a layer that repeats the one before it is only counted.
    """
    lines = [f"graph {graph.name}"]
    lines += [f"  input  {value}: {value.type}" for value in graph.inputs]
    lines += _folded([(_layer(s.name), [f"  state  {s}: {s.type}"]) for s in graph.states], fold)
    sections: list[tuple[str, list[str]]] = []
    scope = None
    for node in graph.nodes:
        layer = _layer(node.scope)
        if not sections or sections[-1][0] != layer or not layer:
            sections.append((layer, []))
        if node.scope != scope:
            scope = node.scope
            sections[-1][1].append(f"  {scope}")
        sections[-1][1].append(f"    {node_text(node)}")
    lines += _folded(sections, fold)
    lines += [f"  output {name} = {value}: {value.type}" for name, value in graph.outputs]
    return "\n".join(lines)


def _layer(scope: str) -> str:
    """`layers.3` of `layers.3.mlp.route`; empty outside the layers."""
    match = re.match(r"layers\.\d+(?=\.)", scope)
    return match[0] if match else ""


def _folded(sections: list[tuple[str, list[str]]], fold: bool) -> list[str]:
    """All lines; of sections alike but for their layer and value numbers, the first and a count of the others."""
    lines: list[str] = []
    last, shape, repeats = "", None, 0
    for layer, own in [*sections, ("", [])]:
        alike = re.sub(r"%\d+", "%", "\n".join(own).replace(f"{layer}.", "layer.")) if layer else None
        if fold and alike is not None and alike == shape:
            last, repeats = layer, repeats + 1
            continue
        if repeats:
            lines.append(f"  … and {repeats} more alike, up to {last}")
        shape, repeats = alike, 0
        lines += own
    return lines


def node_text(node: Node) -> str:
    """`%4: bf16[N, 3072] = swiglu(%3)`; after an absent operand, one whose name does not say so itself is named."""
    outputs = ", ".join(f"{value}: {value.type}" for value in node.outputs)
    shown, gap = [], False
    for param, operand in node.operands.items():
        gap = gap or operand is None
        if operand is not None:
            text = _operand(operand, node.scope)
            shown.append(f"{param}={text}" if gap and not text.endswith(param) else text)
    shown += [f"{name}={_attr(value)}" for name, value in node.attrs]
    return f"{outputs} = {node.op}({', '.join(shown)})"


def _operand(operand: Operand, scope: str) -> str:
    if isinstance(operand, Weight) and operand.name.startswith(scope + "."):
        return f"@{operand.name.removeprefix(scope)}"
    return str(operand)


def _attr(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
