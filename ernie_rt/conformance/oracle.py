"""The oracle and the yardstick: a graph run in float64, or with the rounding that a backend declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.rounding import EPSILON, Rounding, evaluate
from ernie_rt.contract.protocols import OpNumerics
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Reject, decompose, legalize
from ernie_rt.graph.types import DType, Operand, State, Value, Weight

Array = npt.NDArray[Any]
Load = Callable[[Weight], Array]


@dataclass(frozen=True, slots=True)
class Route:
    """What a router did: the scores `[N, E]` that experts were chosen by, and the choice `[N, A]`."""

    scores: Array
    ids: Array

    def gap(self, ids: Array) -> Array:
        """By how much the best choice beats the choice `ids`, at its worst expert `[N]`; 0 where it is as good."""
        last = -np.sort(-self.scores, axis=-1)[:, ids.shape[1] - 1]
        return np.asarray(np.maximum(last - np.take_along_axis(self.scores, ids, -1).min(-1), 0.0))

    def distance(self) -> Array:
        """By how much the last expert taken beats the first one left `[N]`; infinite when none is left."""
        ranked = -np.sort(-self.scores, axis=-1)
        taken = self.ids.shape[1]
        if taken == ranked.shape[1]:
            return np.full(len(ranked), np.inf)
        return np.asarray(ranked[:, taken - 1] - ranked[:, taken])

    def noise(self, noisy: Route) -> Array:
        """How far the scores of another run lie off `[N]`, no less than what is usual."""
        off = np.abs(noisy.scores - self.scores).max(-1)
        floor = EPSILON["float32"] * np.abs(self.scores).max(-1) / 4
        return np.asarray(np.maximum(np.maximum(off, np.median(off)), floor))


def bad_choice(ids: Array, shape: tuple[int, ...], experts: int) -> str:
    """What is wrong with a choice of experts, whatever the scores; empty when nothing is."""
    if ids.shape != shape:
        return f"expert ids have the shape {list(ids.shape)}, not {list(shape)}"
    wrong = (ids < 0).any(-1) | (ids >= experts).any(-1) | (np.diff(np.sort(ids)) == 0).any(-1)
    if not wrong.any():
        return ""
    token = int(wrong.argmax())
    return f"token {token} goes to experts {ids[token].tolist()}; expected different ones of 0 to {experts - 1}"


@dataclass(slots=True)
class Walked:
    """The outputs of a graph by name, and its routers by scope."""

    outputs: dict[str, Array] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)


class Walk:
    """Runs a graph, composite by composite: in float64, or with the rounding of some numerics. States persist.

    `load` gives a weight's numbers in float64; `rows` is how many cache rows there are.
    """

    def __init__(
        self, graph: Graph, load: Load, rows: int, activation: DType, numerics: Callable[[str], OpNumerics] | None
    ) -> None:
        self._graph = legalize(graph, _composites).graph
        self._load = load
        self._activation = activation
        self._numerics = numerics
        self._states = {state.name: np.zeros(state.type.shape({"R": rows})) for state in graph.states}

    def run(
        self, inputs: Mapping[str, Array], bindings: Mapping[str, int], forced: Mapping[str, Array] | None = None
    ) -> Walked:
        """Take one step. `forced` are the experts `[N, A]` that routers choose, by scope, whatever their scores say."""
        walked = Walked()
        graph = self._graph
        last = {o.name: i for i, node in enumerate(graph.nodes) for o in node.inputs if isinstance(o, Value)}
        last.update((value.name, len(graph.nodes)) for _, value in graph.outputs)
        values = dict(inputs)
        for i, node in enumerate(graph.nodes):
            operands = [self._read(operand, values) for operand in node.inputs]
            if node.op == "moe_route":
                results, route = self._route(node, operands, bindings, (forced or {}).get(node.scope))
                walked.routes[node.scope] = route
            else:
                results = self._evaluate(node, operands, bindings)
            values.update(zip((value.name for value in node.outputs), results, strict=True))
            values = {name: value for name, value in values.items() if last.get(name, -1) > i}
        walked.outputs = {name: values[value.name] for name, value in graph.outputs}
        return walked

    def _read(self, operand: Operand, values: Mapping[str, Array]) -> Array | None:
        match operand:
            case Value(name):
                return values[name]
            case Weight():
                return self._load(operand)
            case State(name):
                return self._states[name]
        return None

    def _evaluate(
        self, node: Node, operands: list[Array | None], bindings: Mapping[str, int], op: str = ""
    ) -> tuple[Array, ...]:
        if self._numerics is None:
            return evaluate(node, operands, bindings)
        rounding = Rounding(self._numerics(op or node.op), self._activation)
        given = [
            rounding.round(x, operand.type) if x is not None and isinstance(operand, Weight) else x
            for x, operand in zip(operands, node.inputs, strict=True)
        ]
        return rounding.evaluate(node, given, bindings)

    def _route(
        self, node: Node, operands: list[Array | None], bindings: Mapping[str, int], forced: Array | None
    ) -> tuple[tuple[Array, ...], Route]:
        """The router in parts, to see its scores and to choose for it."""
        inner, outputs = decompose(node)
        known: dict[str, Any] = {"None": None, **dict(zip(map(str, node.inputs), operands, strict=True))}
        route = None
        for child in inner:
            results = self._evaluate(child, [known[str(o)] for o in child.inputs], bindings, node.op)
            if child.op == "top_k":
                ids = results[0] if forced is None else forced
                route = Route(np.asarray(known[str(child.inputs[0])], np.float64), ids)
                results = (ids,)
            known.update(zip(map(str, child.outputs), results, strict=True))
        assert route is not None
        return tuple(known[str(value)] for value in outputs), route


def _composites(node: Node) -> Accept | Reject:
    if node.spec.level == "block" or node.op == "moe":
        return Reject("its router is to be seen")
    return Accept()
