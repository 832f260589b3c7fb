"""A graph: a flat, immutable list of nodes in SSA form; and its text, for people."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ernie_rt.graph.op import Op
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import Attr, Operand, State, Value, Weight


@dataclass(frozen=True, slots=True)
class Node:
    """One op applied to operands; `scope` says where in the model, such as `layers.3.mlp.route`."""

    op: str
    inputs: tuple[Operand, ...]
    attrs: tuple[tuple[str, Attr], ...]
    outputs: tuple[Value, ...]
    scope: str

    @property
    def spec(self) -> Op:
        return OPS[self.op]

    @property
    def attributes(self) -> dict[str, Attr]:
        return dict(self.attrs)

    @property
    def operands(self) -> dict[str, Operand]:
        """Inputs by the parameter names of the op."""
        return dict(zip(self.spec.params, self.inputs, strict=True))


@dataclass(frozen=True, slots=True)
class Graph:
    """Named inputs and outputs, states, and nodes in the order in which they run. `str()` prints it for people."""

    name: str
    inputs: tuple[Value, ...]
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, Value], ...]

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight once, in the order of first use."""
        found: dict[str, Weight] = {}
        for node in self.nodes:
            for operand in node.inputs:
                if isinstance(operand, Weight):
                    found.setdefault(operand.name, operand)
        return tuple(found.values())

    def with_weights(self, change: Callable[[Weight], Weight]) -> Graph:
        """The graph with each weight changed."""

        def changed(node: Node) -> Node:
            inputs = (change(operand) if isinstance(operand, Weight) else operand for operand in node.inputs)
            return replace(node, inputs=tuple(inputs))

        return replace(self, nodes=tuple(map(changed, self.nodes)))

    def output(self, name: str) -> Value:
        return dict(self.outputs)[name]

    def __str__(self) -> str:
        return graph_text(self)


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
    """`layers.3` of `layers.3.mlp.route`, in a vision tower too; empty outside the layers."""
    match = re.match(r"(vision\.)?layers\.\d+(?=\.)", scope)
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
