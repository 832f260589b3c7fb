"""The primitives: shape rules of the ops that everything else decomposes into.

Elementwise ops broadcast as NumPy does. A docstring is the op's formula.
"""

from __future__ import annotations

import math

from ernie_rt.errors import GraphError
from ernie_rt.graph.op import Op, define
from ernie_rt.graph.types import FLOATS, Dim, DType, TensorType


def need(condition: bool, what: str) -> None:
    """Raise GraphError when a shape rule is broken."""
    if not condition:
        raise GraphError(what)


def need_float(*types: TensorType) -> None:
    for type in types:
        need(type.dtype in FLOATS, f"{type} is not floating")


def need_int(*types: TensorType) -> None:
    for type in types:
        need(type.dtype == "int32", f"{type} is not int32")


def broadcast(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """NumPy's broadcasting; a symbolic dim matches itself or 1."""
    length = max(len(a), len(b))
    result: list[Dim] = []
    for x, y in zip((1,) * (length - len(a)) + a, (1,) * (length - len(b)) + b, strict=True):
        need(x == y or x == 1 or y == 1, f"{list(a)} and {list(b)} do not broadcast")
        result.append(y if x == 1 else x)
    return tuple(result)


def _elementwise(a: TensorType, b: TensorType) -> TensorType:
    need(a.dtype == b.dtype, f"{a} and {b} differ in dtype")
    return TensorType(a.dtype, broadcast(a.dims, b.dims))


def cast(x: TensorType, *, dtype: DType) -> TensorType:
    """x converted to `dtype`."""
    return x.with_dtype(dtype)


def add(a: TensorType, b: TensorType) -> TensorType:
    """a + b"""
    need_float(a, b)
    return _elementwise(a, b)


def sub(a: TensorType, b: TensorType) -> TensorType:
    """a - b"""
    need_float(a, b)
    return _elementwise(a, b)


def mul(a: TensorType, b: TensorType) -> TensorType:
    """a * b"""
    need_float(a, b)
    return _elementwise(a, b)


def div(a: TensorType, b: TensorType) -> TensorType:
    """a / b"""
    need_float(a, b)
    return _elementwise(a, b)


def affine(x: TensorType, *, scale: float, shift: float) -> TensorType:
    """x * scale + shift, with constants."""
    need_float(x)
    return x


def clamp_min(x: TensorType, *, minimum: float) -> TensorType:
    """max(x, minimum)"""
    need_float(x)
    return x


def rsqrt(x: TensorType) -> TensorType:
    """1 / sqrt(x)"""
    need_float(x)
    return x


def sigmoid(x: TensorType) -> TensorType:
    """1 / (1 + exp(-x))"""
    need_float(x)
    return x


def erf(x: TensorType) -> TensorType:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x"""
    need_float(x)
    return x


def softmax(x: TensorType) -> TensorType:
    """exp(x - max(x)) / sum(exp(x - max(x))) over the last axis; -inf gives 0."""
    need_float(x)
    return x


def sum_(x: TensorType, *, axis: int, keepdims: bool) -> TensorType:
    """The sum over one axis (counted from 0), which becomes 1 (keepdims) or goes."""
    need_float(x)
    need(0 <= axis < len(x.dims), f"{x} has no axis {axis}")
    kept: tuple[Dim, ...] = (1,) if keepdims else ()
    return TensorType(x.dtype, x.dims[:axis] + kept + x.dims[axis + 1 :])


def matmul(a: TensorType, b: TensorType) -> TensorType:
    """a @ b over the last two axes: `[.., M, K] @ [.., K, N]`, leading axes broadcast."""
    need_float(a, b)
    need(a.dtype == b.dtype, f"{a} and {b} differ in dtype")
    need(len(a.dims) >= 2 and len(b.dims) >= 2 and a.dims[-1] == b.dims[-2], f"{a} @ {b}")
    return TensorType(a.dtype, (*broadcast(a.dims[:-2], b.dims[:-2]), a.dims[-2], b.dims[-1]))


def top_k(x: TensorType, *, k: int) -> TensorType:
    """The places of the k largest values on the last axis, largest first; ties go to the lowest place."""
    need_float(x)
    last = x.dims[-1]
    need(isinstance(last, int) and 1 <= k <= last, f"top {k} of {x}")
    return TensorType("int32", (*x.dims[:-1], k))


def take_rows(table: TensorType, ids: TensorType) -> TensorType:
    """table[ids]: rows along the first axis."""
    need_int(ids)
    need(len(table.dims) >= 1, f"{table} has no rows")
    return TensorType(table.dtype, ids.dims + table.dims[1:])


def take_along(x: TensorType, ids: TensorType) -> TensorType:
    """x[.., ids[.., j]]: picks along the last axis; the leading axes of both agree."""
    need_int(ids)
    need(x.dims[:-1] == ids.dims[:-1], f"{x} and {ids} differ in leading axes")
    return TensorType(x.dtype, ids.dims)


def one_hot(ids: TensorType, *, depth: int, dtype: DType) -> TensorType:
    """1 where the new last axis equals the id, else 0; an id outside [0, depth), such as -1, gives zeros alone."""
    need_int(ids)
    return TensorType(dtype, (*ids.dims, depth))


def where(mask: TensorType, x: TensorType, *, otherwise: float) -> TensorType:
    """x where the mask is true, else the constant, which is a whole number where x is integers."""
    need(mask.dtype == "bool", f"{mask} is not bool")
    if x.dtype not in FLOATS:
        need_int(x)
        need(float(otherwise).is_integer(), f"{otherwise} among integers")
    return TensorType(x.dtype, broadcast(mask.dims, x.dims))


def equal(a: TensorType, b: TensorType) -> TensorType:
    """a == b on integers."""
    need_int(a, b)
    return TensorType("bool", broadcast(a.dims, b.dims))


def less_equal(a: TensorType, b: TensorType) -> TensorType:
    """a <= b on integers."""
    need_int(a, b)
    return TensorType("bool", broadcast(a.dims, b.dims))


def in_range(x: TensorType, *, start: int, stop: int) -> TensorType:
    """start <= x < stop on integers, with constants."""
    need_int(x)
    need(start < stop, f"nothing lies in {start}:{stop}")
    return TensorType("bool", x.dims)


def logical_and(a: TensorType, b: TensorType) -> TensorType:
    """a and b"""
    need(a.dtype == b.dtype == "bool", f"{a} and {b} are not both bool")
    return TensorType("bool", broadcast(a.dims, b.dims))


def reshape(x: TensorType, *, dims: tuple[int | str, ...]) -> TensorType:
    """The same elements, in order, under other dims; symbolic axes stay."""

    def volume(dims: tuple[Dim, ...]) -> tuple[int, list[str]]:
        return math.prod(d for d in dims if isinstance(d, int)), sorted(d for d in dims if isinstance(d, str))

    need(volume(x.dims) == volume(dims), f"{x} does not reshape to {list(dims)}")
    return TensorType(x.dtype, tuple(dims))


def transpose(x: TensorType, *, perm: tuple[int, ...]) -> TensorType:
    """Axes in another order: axis i of the result is axis perm[i] of x."""
    need(sorted(perm) == list(range(len(x.dims))), f"{list(perm)} does not permute {x}")
    return TensorType(x.dtype, tuple(x.dims[p] for p in perm))


def slice_(x: TensorType, *, axis: int, start: int, stop: int) -> TensorType:
    """x[start:stop] along one axis."""
    need(0 <= axis < len(x.dims), f"{x} has no axis {axis}")
    size = x.dims[axis]
    need(isinstance(size, int) and 0 <= start < stop <= size, f"{start}:{stop} of axis {axis} of {x}")
    return TensorType(x.dtype, (*x.dims[:axis], stop - start, *x.dims[axis + 1 :]))


def concat(a: TensorType, b: TensorType, *, axis: int) -> TensorType:
    """a, then b, along one axis."""
    need(a.dtype == b.dtype and len(a.dims) == len(b.dims) and 0 <= axis < len(a.dims), f"{a} and {b} on axis {axis}")
    first, second = a.dims[axis], b.dims[axis]
    rest = all(x == y for i, (x, y) in enumerate(zip(a.dims, b.dims, strict=True)) if i != axis)
    if not (rest and isinstance(first, int) and isinstance(second, int)):
        raise GraphError(f"{a} and {b} do not join on axis {axis}")
    return TensorType(a.dtype, (*a.dims[:axis], first + second, *a.dims[axis + 1 :]))


def cache_update(
    k: TensorType, v: TensorType, state: TensorType, write: TensorType, context: TensorType
) -> tuple[TensorType, TensorType]:
    """Write the new K and V rows into the state at rows `write`, then read the rows `context` of both.

    One op rather than a write and a read, so that no order is left to say: what it returns holds what it wrote.
    """
    need_int(write, context)
    need(k == v and len(k.dims) == 3, f"k {k} and v {v} are not both [N, K, D]")
    need(write.dims == k.dims[:1], f"write {write} does not place the rows of {k}")
    need(state.dims[1:] == (2, *k.dims[1:]) and state.dtype == k.dtype, f"state {state} does not hold rows of {k}")
    read = TensorType(k.dtype, (*context.dims, *k.dims[1:]))
    return read, read


PRIMITIVES: tuple[Op, ...] = tuple(
    define("primitive", rule)
    for rule in (
        cast, add, sub, mul, div, affine, clamp_min, rsqrt, sigmoid, erf, softmax, sum_, matmul, top_k, take_rows,
        take_along, one_hot, where, equal, less_equal, in_range, logical_and, reshape, transpose, slice_, concat,
        cache_update,
    )
)  # fmt: skip
