"""Walk a lowering with a table of functions: the shortest way from a graph to numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import Lowering
from ernie_rt.graph.types import Operand, State, Value, Weight


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[int, ...]  # places in the registers; -1 is an absent operand
    results: tuple[int, ...]
    attrs: dict[str, Any]
    symbolic: tuple[str, ...]  # attributes with symbolic dims, bound at each run
    name: str  # of the node's first value
    dead: tuple[int, ...]  # registers that nothing later reads


class Interpreter:
    """Calls `functions[op](*operands, **attributes)` for each node, in order.

    Weights and states are bound once, to whatever objects the functions understand. Symbolic dims among the attributes
    arrive as numbers, an absent operand as None. A value is dropped after its last use.
    """

    def __init__(
        self,
        lowering: Lowering,
        functions: Mapping[str, Callable[..., Any]],
        weights: Mapping[str, Any],
        states: Mapping[str, Any],
    ) -> None:
        graph = lowering.graph
        self._places: dict[str, int] = {}
        self._bound: list[Any] = []
        for node in graph.nodes:
            for operand in node.inputs:
                if isinstance(operand, Weight):
                    self._bind(str(operand), weights[operand.name])
                elif isinstance(operand, State):
                    self._bind(str(operand), states[operand.name])
        self._inputs = tuple((value.name, self._place(value)) for value in graph.inputs)
        self._outputs = tuple((name, self._place(value)) for name, value in graph.outputs)
        self._taps = tuple((tap, self._place(value)) for tap, value in lowering.taps)
        kept = {place for _, place in (*self._outputs, *self._taps)} | set(range(len(self._bound)))
        self._calls: list[_Call] = []
        for node in reversed(graph.nodes):
            self._calls.append(self._call(node, functions[node.op], kept))
        self._calls.reverse()

    def run(
        self, inputs: Mapping[str, Any], bindings: Mapping[str, int], after: Callable[[str], None] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The graph's outputs and taps by name; `bindings` gives numbers to the symbolic dims.

        `after` is told the name of each node's first value when its function has returned.
        """
        registers = self._bound + [None] * (len(self._places) - len(self._bound) + 1)  # the last one stays None
        for name, place in self._inputs:
            registers[place] = inputs[name]
        for call in self._calls:
            attrs = call.attrs
            for name in call.symbolic:
                dims = tuple(bindings[d] if isinstance(d, str) else d for d in attrs[name])
                attrs = {**attrs, name: dims}
            result = call.function(*[registers[place] for place in call.arguments], **attrs)
            values = (result,) if len(call.results) == 1 else result
            for i, place in enumerate(call.results):
                registers[place] = values[i]
            for place in call.dead:
                registers[place] = None
            del result, values  # or they would live through the next call
            if after is not None:
                after(call.name)
        return (
            {name: registers[place] for name, place in self._outputs},
            {name: registers[place] for name, place in self._taps},
        )

    def _bind(self, name: str, value: Any) -> None:
        if name not in self._places:
            self._places[name] = len(self._bound)
            self._bound.append(value)

    def _place(self, operand: Operand) -> int:
        return -1 if operand is None else self._places.setdefault(str(operand), len(self._places))

    def _call(self, node: Node, function: Callable[..., Any], live: set[int]) -> _Call:
        arguments = tuple(self._place(operand) for operand in node.inputs)
        results = tuple(self._place(value) for value in node.outputs)
        # Calls are made from the last to the first, so a register not yet live is read here for the last time.
        dead = tuple({p for p, o in zip(arguments, node.inputs, strict=True) if isinstance(o, Value)} - live)
        unread = tuple(set(results) - live)
        live.update(dead)
        attrs = node.attributes
        symbolic = tuple(
            name for name, v in attrs.items() if isinstance(v, tuple) and any(isinstance(d, str) for d in v)
        )
        return _Call(function, arguments, results, attrs, symbolic, node.outputs[0].name, dead + unread)
