"""What an op is: operands, attributes, shape rule, decomposition."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ernie_rt.graph.types import Attr, Operand, TensorType, Value

Level = Literal["block", "composite", "primitive"]


class Composer(Protocol):
    """What a decomposition writes to: a Builder, which appends nodes, or the reference, which computes at once."""

    def __call__(self, op: str, *operands: Operand, **attrs: Attr) -> Value:
        """One op; its one output."""
        ...

    def multi(self, op: str, *operands: Operand, **attrs: Attr) -> tuple[Value, ...]:
        """One op; all its outputs."""
        ...

    def widen(self, x: Value) -> Value:
        """`x` cast to `TensorType.wide`."""
        ...

    def scope(self, name: str) -> AbstractContextManager[None]:
        """What comes inside gets `name` appended to its scope."""
        ...


@dataclass(frozen=True, slots=True)
class Op:
    """One op: its operands and attributes, its shape rule, and how it decomposes.

    `rule(*operand types, **attributes)` returns the output type or types and raises GraphError; its positional
    parameters name the operands (one annotated `| None` is optional), its keyword-only ones the attributes, and
    its docstring says what the op computes. `decompose(composer, *operands, **attributes)` writes ops of a lower level
    and returns the value or values that stand for the outputs; None for a primitive.
    """

    name: str
    level: Level
    params: tuple[str, ...]
    optional: frozenset[str]
    attrs: tuple[str, ...]
    rule: Callable[..., TensorType | tuple[TensorType, ...]]
    decompose: Callable[..., Any] | None

    def infer(self, *types: TensorType | None, **attrs: Any) -> tuple[TensorType, ...]:
        result = self.rule(*types, **attrs)
        return result if isinstance(result, tuple) else (result,)


def define(level: Level, rule: Callable[..., Any], decompose: Callable[..., Any] | None = None) -> Op:
    """Read an Op off its shape rule: name, operands and attributes are those of the function."""
    parameters = inspect.signature(rule).parameters.values()
    operands = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    return Op(
        name=rule.__name__.rstrip("_"),
        level=level,
        params=tuple(p.name for p in operands),
        optional=frozenset(p.name for p in operands if "None" in str(p.annotation)),
        attrs=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
        rule=rule,
        decompose=decompose,
    )
