"""The builder that makes graphs, checking each node against its op."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ernie_rt.errors import GraphError
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.op import Op
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import Attr, Operand, Plain, State, Storage, TensorType, Value


class Builder:
    """Appends nodes, checking each against the shape rule of its op.

    `builder("rms_norm", x, weight, eps=1e-5)` returns the node's one output, `builder.multi(…)` all of them.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._inputs: list[Value] = []
        self._states: list[State] = []
        self.nodes: list[Node] = []
        self._scope: list[str] = []
        self._count = 0

    def input(self, name: str, type: TensorType) -> Value:
        value = Value(name, type)
        self._inputs.append(value)
        return value

    def state(self, name: str, type: TensorType, storage: Storage | None = None) -> State:
        """Stored as it is computed with, where `storage` does not say how."""
        state = State(name, type, storage or Plain(type.dtype))
        self._states.append(state)
        return state

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes added inside get `name` appended to their scope; an empty name changes nothing."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    @property
    def current_scope(self) -> str:
        return ".".join(part for part in self._scope if part)

    def multi(self, op: str, *operands: Operand, **attrs: Attr) -> tuple[Value, ...]:
        """Append one node and return its outputs; GraphError when the operands do not fit the op."""
        spec = OPS.get(op)
        if spec is None:
            raise GraphError(f"there is no op {op!r}", where=self.current_scope, hint="ernie_rt.graph.ops lists them")
        inputs = operands + (None,) * (len(spec.params) - len(operands))
        types = infer(spec, inputs, attrs, self.current_scope)
        outputs = tuple(Value(f"{self._prefix}{self._count + i}", type) for i, type in enumerate(types))
        self._count += len(outputs)
        self.nodes.append(Node(op, inputs, tuple(attrs.items()), outputs, self.current_scope))
        return outputs

    def __call__(self, op: str, *operands: Operand, **attrs: Attr) -> Value:
        (output,) = self.multi(op, *operands, **attrs)
        return output

    def widen(self, x: Value) -> Value:
        return self("cast", x, dtype=x.type.wide)

    def finish(self, name: str, outputs: Mapping[str, Value]) -> Graph:
        return Graph(name, tuple(self._inputs), tuple(self._states), tuple(self.nodes), tuple(outputs.items()))


def infer(spec: Op, inputs: tuple[Operand, ...], attrs: Mapping[str, Attr], scope: str) -> tuple[TensorType, ...]:
    """The output types of an op on these operands; GraphError, with the scope, when they do not fit."""
    if len(inputs) != len(spec.params) or set(attrs) != set(spec.attrs):
        raise GraphError(
            f"{spec.name} called with {len(inputs)} operands and attributes {sorted(attrs)}",
            where=scope,
            expected=f"{spec.name}({', '.join(spec.params)}; {', '.join(spec.attrs)})",
        )
    for param, operand in zip(spec.params, inputs, strict=True):
        if operand is None and param not in spec.optional:
            raise GraphError(f"{spec.name} needs its operand {param!r}", where=scope)
    try:
        return spec.infer(*(None if operand is None else operand.type for operand in inputs), **attrs)
    except GraphError as error:
        raise GraphError(f"{spec.name}: {error.what}", where=scope) from None
