"""What rounding alone does to an op: its primitives, run in the dtypes that a backend declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.protocols import OpNumerics
from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import decompose
from ernie_rt.graph.types import DTYPES, FLOATS, DType, Operand, TensorType, Value, Weight
from ernie_rt.reference.ops import MEANINGS

Array = npt.NDArray[Any]

EPSILON: Final[Mapping[DType, float]] = {dtype: DTYPES[dtype].epsilon for dtype in FLOATS}
"""The distance from 1 to the next number."""

USUAL_ROWS: Final = 50
"""So many tokens have no extremes."""

INT8: Final = 127.0
"""The largest code of a rounded activation."""

SUMMATION: Final = 1e-13
"""What another order of float64 sums may change, of the rms of a row."""


def evaluate(node: Node, operands: Sequence[Array | None], bindings: Mapping[str, int]) -> tuple[Array, ...]:
    """The outputs of a node by the reference, in the dtype of its operands."""
    attrs = {
        name: tuple(bindings[d] if isinstance(d, str) else d for d in value) if isinstance(value, tuple) else value
        for name, value in node.attrs
    }
    with np.errstate(all="ignore"):  # a backend may have handed over anything
        result = MEANINGS[node.op](*operands, **attrs)
    return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How an op rounds: values of the model's `activation` dtype to what it multiplies in, wider ones to what it sums
    in, and none to more than their type in the graph holds."""

    numerics: OpNumerics
    activation: DType

    def of(self, type: TensorType) -> DType:
        promised = self.numerics.compute if type.dtype == self.activation else self.numerics.accumulate
        return max(type.dtype, promised, key=lambda dtype: EPSILON[dtype])

    def round(self, x: Array, type: TensorType) -> Array:
        """`x` rounded, and held in the dtype of sums; integers and masks as they are."""
        if type.dtype not in EPSILON:
            return x
        with np.errstate(all="ignore"):
            return np.asarray(x).astype(self.of(type), copy=False).astype(self.numerics.accumulate, copy=False)

    def meeting(self, x: Array | None, weight: Operand) -> Any:
        """Activations `[.., K]` as they are multiplied by a weight: rounded to int8 where that is promised."""
        block = weight.storage.activation_block if isinstance(weight, Weight) else None
        if x is None or block is None or self.numerics.activations is None:
            return x
        rows = x.reshape(*x.shape[:-1], -1, block)
        with np.errstate(all="ignore"):
            scale = np.abs(rows).max(-1, keepdims=True) / INT8
            return (np.rint(rows / np.where(scale == 0, 1, scale)) * scale).astype(x.dtype).reshape(x.shape)

    def evaluate(self, node: Node, operands: Sequence[Array | None], bindings: Mapping[str, int]) -> tuple[Array, ...]:
        """The outputs of a node, rounded after each of its primitives. Weights come rounded, and stay as they are."""
        rounded = [
            self.round(x, operand.type) if x is not None and isinstance(operand, Value) else x
            for x, operand in zip(operands, node.inputs, strict=True)
        ]
        if node.op == "moe_experts":
            return (self._experts(node, rounded),)
        if node.op == "linear":
            rounded[0] = self.meeting(rounded[0], node.inputs[1])
        if node.spec.decompose is None:
            results = evaluate(node, rounded, bindings)
            return tuple(self.round(x, value.type) for x, value in zip(results, node.outputs, strict=True))
        values: dict[str, Array | None] = {str(operand): x for operand, x in zip(node.inputs, rounded, strict=True)}
        inner, outputs = decompose(node)
        for child in inner:
            results = self.evaluate(child, [values[str(operand)] for operand in child.inputs], bindings)
            values.update(zip(map(str, child.outputs), results, strict=True))
        return tuple(np.asarray(values[str(value)]) for value in outputs)

    def _experts(self, node: Node, operands: Sequence[Any]) -> Array:
        """`moe_experts` on the tokens that each expert is given; its primitives run every expert on every token."""
        x, ids, weights, gate_up, down = operands
        x = self.meeting(x, node.inputs[3])
        value = node.outputs[0].type
        out = np.zeros_like(operands[0])
        for expert in np.unique(ids[ids >= 0]):
            token, place = np.nonzero(ids == expert)
            with np.errstate(all="ignore"):
                halves = self.round(MEANINGS["linear"](x[token], gate_up[expert]), value)  # [n, I, 2]
                gate = self.round(halves[..., 0] * self.round(MEANINGS["sigmoid"](halves[..., 0]), value), value)
                inner = self.meeting(self.round(gate * halves[..., 1], value), node.inputs[4])
                y = self.round(inner @ down[expert].T, value)
                out[token] += self.round(weights[token, place, None] * y, value)
        return self.round(out, value)


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def multiples(found: Array, exact: Array, rounded: Array, epsilon: float) -> Array:
    """The error of each token in multiples of its noise `[N]`: rms over rms.

    The noise is what rounding did to that token or, since it may have been lucky, to the median one; never less than a
    quarter of `epsilon`, the rms of one rounding.
    """
    with np.errstate(all="ignore"):
        scale, noise, error = (rows_rms(x) for x in (exact, rounded - exact, found - exact))
        relative = np.where(scale > 0, noise / scale, 0.0)
        known = np.isfinite(relative)
        usual = float(np.median(relative[known])) if known.any() else 0.0
        relative[~known] = np.inf  # what overflows when it is rounded may come out as anything
        unit = scale * np.maximum(relative, max(usual, epsilon / 4, SUMMATION))
        result = np.where(error == 0, 0.0, error / unit)
    result[~np.isfinite(result)] = np.inf
    return result


def summary(error: Array, allowed: float = 1.0) -> float:
    """One number for all tokens: their rms, or half the worst, over how much larger than usual that may be."""
    return max(float(np.sqrt(np.mean(np.square(error)))), float(error.max()) / (2 * allowed))


def growth(tokens: int) -> float:
    """How much larger than the worst of few tokens of a model the worst of so many may be.

    Multiples of noise are ratios of two random numbers, and now and then rounding is lucky where a trained model is
    sensitive: of 16,569 positions 1 in 100 was beyond 3.0, 1 in 1000 beyond 5.5, 1 in 10,000 beyond 9.9.
    """
    return float(max(tokens / USUAL_ROWS, 1.0) ** 0.25)


def rows_rms(x: Array) -> Array:
    """The rms of each token's values `[N]`."""
    return np.asarray(np.sqrt(np.mean(np.square(x.reshape(len(x), -1), dtype=np.float64), axis=1)))
