"""What every op means, in NumPy: the definition that all backends are held to.

Every function takes the op's operands by position and its attributes by keyword, as `ernie_rt.graph.ops` declares
them, and computes in the float dtype of what it is given (float64 in the reference backend); casts between float
dtypes therefore do nothing here. A `State` operand is an array `[R, 2, K, D]` that `cache_update` writes into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.graph.blocks import BLOCKS

Array = npt.NDArray[Any]


def cast(x: Array, *, dtype: str) -> Array:
    return x


def affine(x: Array, *, scale: float, shift: float) -> Array:
    return x * scale + shift


def clamp_min(x: Array, *, minimum: float) -> Array:
    return np.maximum(x, minimum)


def rsqrt(x: Array) -> Array:
    return 1.0 / np.sqrt(x)


def sigmoid(x: Array) -> Array:
    # exp of a negative number alone, so that nothing overflows.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def softmax(x: Array) -> Array:
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def sum_(x: Array, *, axis: int, keepdims: bool) -> Array:
    return np.sum(x, axis=axis, keepdims=keepdims)


def top_k(x: Array, *, k: int) -> Array:
    return np.argsort(-x, axis=-1, kind="stable")[..., :k].astype(np.int32)


def take_rows(table: Array, ids: Array) -> Array:
    return table[ids]


def take_along(x: Array, ids: Array) -> Array:
    return np.take_along_axis(x, ids, axis=-1)


def one_hot(ids: Array, *, depth: int, dtype: str) -> Array:
    return (ids[..., None] == np.arange(depth)).astype(np.float64)


def where(mask: Array, x: Array, *, otherwise: float) -> Array:
    return np.where(mask, x, x.dtype.type(otherwise))


def in_range(x: Array, *, start: int, stop: int) -> Array:
    return (start <= x) & (x < stop)


def reshape(x: Array, *, dims: tuple[int, ...]) -> Array:
    return x.reshape(dims)


def transpose(x: Array, *, perm: tuple[int, ...]) -> Array:
    return x.transpose(perm)


def slice_(x: Array, *, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def concat(a: Array, b: Array, *, axis: int) -> Array:
    return np.concatenate([a, b], axis=axis)


def cache_update(k: Array, v: Array, state: Array, write: Array, context: Array) -> tuple[Array, Array]:
    state[write, 0] = k
    state[write, 1] = v
    return state[context, 0], state[context, 1]


def rms_norm(x: Array, weight: Array, *, eps: float) -> Array:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight + bias


def gelu(x: Array, *, form: str) -> Array:
    return x * (sigmoid(1.702 * x) if form == "quick" else (1.0 + erf(x / math.sqrt(2.0))) / 2.0)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = (x @ weight.reshape(-1, weight.shape[-1]).T).reshape(*x.shape[:-1], *weight.shape[:-1])
    return y if bias is None else y + bias


def swiglu(x: Array) -> Array:
    gate, up = x[..., 0], x[..., 1]
    return gate * sigmoid(gate) * up


def rope(x: Array, cos: Array, sin: Array) -> Array:
    even, odd = x[..., 0::2], x[..., 1::2]  # [N, heads, D/2]
    c, s = cos[:, None], sin[:, None]
    return np.stack([even * c - odd * s, odd * c + even * s], axis=-1).reshape(x.shape)


def rope_rows(table: Array, positions: Array, *, columns: tuple[int, ...]) -> Array:
    return table[positions[:, columns], np.arange(len(columns))]


def attention(
    q: Array,
    k: Array,
    v: Array,
    state: Array | None,
    sequence: Array,
    index: Array | None = None,
    write: Array | None = None,
    context: Array | None = None,
    context_sequence: Array | None = None,
    context_index: Array | None = None,
    *,
    scale: float,
) -> Array:
    keys, values = k, v  # [C, K, D]
    if state is None:
        context_sequence, context_index = sequence, index
    else:
        assert write is not None and context is not None and context_sequence is not None
        keys, values = cache_update(k, v, state, write, context)
    visible = context_sequence[None] == sequence[:, None]  # [N, C]
    if index is not None and context_index is not None:
        visible &= context_index[None] <= index[:, None]
    share = q.shape[1] // k.shape[1]
    out = np.empty_like(q)
    for head in range(q.shape[1]):  # one at a time, so that a long prompt needs [N, C] and not [Q, N, C]
        scores = np.where(visible, q[:, head] @ keys[:, head // share].T * scale, -np.inf)
        out[:, head] = softmax(scores) @ values[:, head // share]
    return out.reshape(len(q), -1)  # [N, Q·D]


def rope_attention(
    qkv: Array,
    cos: Array,
    sin: Array,
    state: Array | None,
    positions: Array | None,
    *indices: Array | None,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> Array:
    heads = qkv.reshape(len(qkv), -1, head_dim)  # [N, Q + 2K, D]
    q, k, v = np.split(heads, [num_heads, num_heads + num_kv_heads], axis=1)
    c, s = (cos, sin) if positions is None else (cos[positions[:, 0]], sin[positions[:, 0]])
    return attention(rope(q, c, s), rope(k, c, s), v, state, *indices, scale=scale)  # type: ignore[arg-type]


def moe_route(
    x: Array, gate: Array, correction_bias: Array | None = None, *, top_k: int, norm_min: float
) -> tuple[Array, Array]:
    probabilities = softmax(x @ gate.T)  # [N, E]
    scores = probabilities if correction_bias is None else probabilities + correction_bias
    ids = _top_k(scores, k=top_k)  # the bias takes part in selecting …
    chosen = take_along(probabilities, ids)  # … and the unbiased probabilities weigh
    return ids, chosen / np.maximum(chosen.sum(axis=-1, keepdims=True), norm_min)


_top_k = top_k


def moe_experts(
    x: Array, ids: Array, weights: Array, experts_gate_up: Array, experts_down: Array, *, top_k: int
) -> Array:
    out = np.zeros_like(x)
    for expert in np.unique(ids[ids >= 0]):
        token, place = np.nonzero(ids == expert)
        inner = swiglu(linear(x[token], experts_gate_up[expert]))
        out[token] += weights[token, place, None] * linear(inner, experts_down[expert])
    return out


def moe(
    x: Array,
    gate: Array,
    correction_bias: Array | None,
    experts_gate_up: Array,
    experts_down: Array,
    mask: Array | None = None,
    *,
    top_k: int,
    norm_min: float,
) -> Array:
    ids, weights = moe_route(x, gate, correction_bias, top_k=top_k, norm_min=norm_min)
    if mask is not None:
        ids = np.where(mask[:, None], ids, np.int32(-1))
    return moe_experts(x, ids, weights, experts_gate_up, experts_down, top_k=top_k)


def embed(ids: Array, table: Array, features: Array | None = None, features_row: Array | None = None) -> Array:
    rows = table[ids]
    if features is None or features_row is None:
        return rows
    return np.where(features_row[:, None] == 0, rows, features[features_row])


class _Parts:
    """Computes at once what a decomposition writes."""

    def __call__(self, op: str, *operands: Any, **attrs: Any) -> Any:
        return MEANINGS[op](*operands, **attrs)

    multi = __call__

    def widen(self, x: Array) -> Array:
        return x

    def scope(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()


MEANINGS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "cast": cast,
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "affine": affine,
        "clamp_min": clamp_min,
        "rsqrt": rsqrt,
        "sigmoid": sigmoid,
        "erf": erf,
        "softmax": softmax,
        "sum": sum_,
        "matmul": np.matmul,
        "top_k": top_k,
        "take_rows": take_rows,
        "take_along": take_along,
        "one_hot": one_hot,
        "where": where,
        "equal": np.equal,
        "less_equal": np.less_equal,
        "in_range": in_range,
        "logical_and": np.logical_and,
        "reshape": reshape,
        "transpose": transpose,
        "slice": slice_,
        "concat": concat,
        "cache_update": cache_update,
        "rms_norm": rms_norm,
        "layer_norm": layer_norm,
        "gelu": gelu,
        "linear": linear,
        "swiglu": swiglu,
        "rope": rope,
        "rope_rows": rope_rows,
        "attention": attention,
        "rope_attention": rope_attention,
        "moe_route": moe_route,
        "moe_experts": moe_experts,
        "moe": moe,
        "embed": embed,
        # The other blocks mean what they decompose into.
        **{op.name: partial(op.decompose, _Parts()) for op in BLOCKS if op.decompose and op.name != "embed"},
    }
)
"""The float64 meaning of every op, by name."""
