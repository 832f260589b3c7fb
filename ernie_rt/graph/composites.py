"""The composites: each with its shape rule and, beside it, what it decomposes into."""

from __future__ import annotations

import functools
import math
from typing import cast

from ernie_rt.graph.op import Composer, Op, define
from ernie_rt.graph.primitives import need, need_float, need_int
from ernie_rt.graph.types import Dim, Operand, TensorType, Value


def _type(operand: Operand) -> TensorType:
    assert operand is not None
    return operand.type


def _size(dim: Dim) -> int:
    need(isinstance(dim, int), f"the axis {dim} has no fixed size")
    return cast(int, dim)


def rms_norm(x: TensorType, weight: TensorType, *, eps: float) -> TensorType:
    """x / sqrt(mean(x²) + eps) · weight over the last axis, in float32.

    transformers rounds to x's dtype before it multiplies by the weight; a backend may round once, after it.
    """
    need_float(x)
    need(weight.dims == x.dims[-1:], f"weight {weight} does not scale {x}")
    return x


def _rms_norm(b: Composer, x: Value, weight: Operand, *, eps: float) -> Value:
    exact = b.widen(x)
    last = len(x.type.dims) - 1
    total = b("sum", b("mul", exact, exact), axis=last, keepdims=True)  # [N, 1]
    inverse = b("rsqrt", b("affine", total, scale=1.0 / _size(x.type.dims[-1]), shift=eps))
    return b("mul", b("cast", b("mul", exact, inverse), dtype=x.type.dtype), weight)


def layer_norm(x: TensorType, weight: TensorType, bias: TensorType, *, eps: float) -> TensorType:
    """(x - mean(x)) / sqrt(variance(x) + eps) · weight + bias over the last axis, the variance that of a population.

    Computed in float32 and rounded once, as PyTorch does.
    """
    need_float(x)
    need(weight.dims == bias.dims == x.dims[-1:], f"weight {weight} and bias {bias} do not scale {x}")
    return x


def _layer_norm(b: Composer, x: Value, weight: Operand, bias: Operand, *, eps: float) -> Value:
    exact, wide = b.widen(x), x.type.wide
    last = len(x.type.dims) - 1
    size = _size(x.type.dims[-1])
    mean = b("affine", b("sum", exact, axis=last, keepdims=True), scale=1.0 / size, shift=0.0)  # [N, 1]
    centred = b("sub", exact, mean)
    total = b("sum", b("mul", centred, centred), axis=last, keepdims=True)
    scaled = b("mul", centred, b("rsqrt", b("affine", total, scale=1.0 / size, shift=eps)))
    scaled = b("add", b("mul", scaled, b("cast", weight, dtype=wide)), b("cast", bias, dtype=wide))
    return b("cast", scaled, dtype=x.type.dtype)


def gelu(x: TensorType, *, form: str) -> TensorType:
    """x · Φ(x), where Φ(x) is (1 + erf(x / sqrt(2))) / 2, of form "erf", or sigmoid(1.702·x), of form "quick"."""
    need_float(x)
    need(form in ("erf", "quick"), f"form {form!r} is neither erf nor quick")
    return x


def _gelu(b: Composer, x: Value, *, form: str) -> Value:
    if form == "quick":
        return b("mul", x, b("sigmoid", b("affine", x, scale=1.702, shift=0.0)))
    exact = b.widen(x)  # what is left of 1 + erf near -1 is not worth having in 16 bits
    normal = b("affine", b("erf", b("affine", exact, scale=math.sqrt(0.5), shift=0.0)), scale=0.5, shift=0.5)
    return b("cast", b("mul", exact, normal), dtype=x.type.dtype)


def linear(x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
    """x @ weightᵀ + bias. `x [N, H]`, `weight [*out, H]`, `bias [*out]` gives `[N, *out]`; out may be several axes."""
    need_float(x, weight)
    need(len(x.dims) == 2 and x.dims[-1] == weight.dims[-1] and x.dtype == weight.dtype, f"{x} @ {weight}ᵀ")
    need(bias is None or bias.dims == weight.dims[:-1], f"bias {bias} of {weight}")
    return TensorType(x.dtype, (x.dims[0], *weight.dims[:-1]))


def _linear(b: Composer, x: Value, weight: Operand, bias: Operand = None) -> Value:
    kind = _type(weight)
    out = math.prod(_size(d) for d in kind.dims[:-1])
    flat = b("reshape", weight, dims=(out, kind.dims[-1]))
    y = b("matmul", x, b("transpose", flat, perm=(1, 0)))
    y = b("reshape", y, dims=(x.type.dims[0], *kind.dims[:-1]))
    return y if bias is None else b("add", y, bias)


def swiglu(x: TensorType) -> TensorType:
    """silu(gate) * up, where `x [.., I, 2]` holds gate and up on its last axis; gives `[.., I]`."""
    need_float(x)
    need(len(x.dims) >= 2 and x.dims[-1] == 2, f"{x} has no last axis of gate and up")
    return TensorType(x.dtype, x.dims[:-1])


def _swiglu(b: Composer, x: Value) -> Value:
    last = len(x.type.dims) - 1
    halves = [
        b("reshape", b("slice", x, axis=last, start=i, stop=i + 1), dims=x.type.dims[:-1]) for i in (0, 1)
    ]  # gate, up: [.., I]
    return b("mul", b("mul", halves[0], b("sigmoid", halves[0])), halves[1])


def rope(x: TensorType, cos: TensorType, sin: TensorType) -> TensorType:
    """Rotate adjacent pairs: out[2i] = x[2i]·cos_i - x[2i+1]·sin_i, out[2i+1] = x[2i+1]·cos_i + x[2i]·sin_i.

    `x [N, heads, D]`, `cos` and `sin` `[N, D/2]` float32; computed in float32 and rounded to x's dtype.
    """
    need(len(x.dims) == 3 and cos == sin and cos.dims == (x.dims[0], _size(x.dims[2]) // 2), f"{x}, {cos}, {sin}")
    return x


def _rope(b: Composer, x: Value, cos: Value, sin: Value) -> Value:
    rows, heads, size = x.type.dims
    half = _size(size) // 2
    wide = x.type.wide
    pairs = b("reshape", b("cast", x, dtype=wide), dims=(rows, heads, half, 2))
    even, odd = (b("slice", pairs, axis=3, start=i, stop=i + 1) for i in (0, 1))  # [N, heads, D/2, 1]
    c, s = (b("cast", b("reshape", t, dims=(rows, 1, half, 1)), dtype=wide) for t in (cos, sin))
    first = b("sub", b("mul", even, c), b("mul", odd, s))
    second = b("add", b("mul", odd, c), b("mul", even, s))
    joined = b("reshape", b("concat", first, second, axis=3), dims=(rows, heads, size))
    return b("cast", joined, dtype=x.type.dtype)


def rope_rows(table: TensorType, positions: TensorType, *, columns: tuple[int, ...]) -> TensorType:
    """The rows of a table of cos or sin for each token: frequency i at the position in column `columns[i]`.

    `table [P, D/2]`, `positions [N, R]` gives `[N, D/2]`.
    """
    need_int(positions)
    need(len(table.dims) == 2 and len(positions.dims) == 2, f"table {table}, positions {positions}")
    need(len(columns) == table.dims[1], f"{len(columns)} columns for the frequencies of {table}")
    need(all(0 <= column < _size(positions.dims[1]) for column in columns), f"columns {set(columns)} of {positions}")
    return TensorType(table.dtype, (positions.dims[0], table.dims[1]))


def _rope_rows(b: Composer, table: Operand, positions: Value, *, columns: tuple[int, ...]) -> Value:
    rows = positions.type.dims[0]
    at = {
        i: b("take_rows", table, b("reshape", b("slice", positions, axis=1, start=i, stop=i + 1), dims=(rows,)))
        for i in sorted(set(columns))
    }  # [N, D/2] each, by column
    starts = [i for i, column in enumerate(columns) if i == 0 or column != columns[i - 1]]
    pieces = [
        b("slice", at[columns[start]], axis=1, start=start, stop=stop)
        for start, stop in zip(starts, [*starts[1:], len(columns)], strict=True)
    ]
    return functools.reduce(lambda first, second: b("concat", first, second, axis=1), pieces)


def attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    state: TensorType | None,
    sequence: TensorType,
    index: TensorType | None = None,
    write: TensorType | None = None,
    context: TensorType | None = None,
    context_sequence: TensorType | None = None,
    context_index: TensorType | None = None,
    *,
    scale: float,
) -> TensorType:
    """Grouped-query attention, causal over cached rows.

    Writes k and v `[N, K, D]` to cache rows `write`, gathers the rows `context`, and for each new token takes the
    softmax of q·k·scale over the rows of its own sequence with context_index <= index, then the weighted sum of v.
    `q [N, Q, D]` gives `[N, Q·D]`; query head h reads kv head h // (Q / K).

    Without a state the new tokens are the context, and without an index each sees all of its sequence. The tokens of a
    sequence lie side by side: `sequence` never falls.
    """
    need_int(sequence)
    need(len(q.dims) == 3 and k == v and q.dims[0] == k.dims[0] and q.dims[2] == k.dims[2], f"q {q}, k {k}, v {v}")
    need(_size(q.dims[1]) % _size(k.dims[1]) == 0, f"q {q} does not divide over k {k}")
    need(sequence.dims == q.dims[:1] and (index is None or index.dims == q.dims[:1]), f"index arrays do not fit {q}")
    cached = (index, write, context, context_sequence, context_index)
    if state is None:
        need(not any(cached[1:]), "index arrays of a cache, and no state")
    else:
        need(None not in cached, "a state needs all index arrays")
        need_int(*(each for each in cached if each is not None))
        need(write is not None and write.dims == q.dims[:1], f"index arrays do not fit {q}")
        need(len({each.dims for each in cached[2:] if each is not None}) == 1, f"context arrays differ: {context}")
    return TensorType(q.dtype, (q.dims[0], _size(q.dims[1]) * _size(q.dims[2])))


def _attention(
    b: Composer,
    q: Value,
    k: Value,
    v: Value,
    state: Operand,
    sequence: Value,
    index: Value | None = None,
    write: Operand = None,
    context: Operand = None,
    context_sequence: Value | None = None,
    context_index: Value | None = None,
    *,
    scale: float,
) -> Value:
    new, heads, size = q.type.dims  # [N, Q, D]
    groups = _size(k.type.dims[1])  # K
    share = _size(heads) // groups  # query heads of one kv head
    keys, values = k, v
    if state is not None:
        keys, values = b.multi("cache_update", k, v, state, write, context)  # [C, K, D] each
    rows = keys.type.dims[0]  # C
    of_row = sequence if context_sequence is None else context_sequence
    place = index if context_index is None else context_index
    query = b("transpose", b("reshape", q, dims=(new, groups, share, size)), perm=(1, 2, 0, 3))  # [K, Q/K, N, D]
    keys = b("reshape", b("transpose", keys, perm=(1, 2, 0)), dims=(groups, 1, size, rows))  # [K, 1, D, C]
    values = b("reshape", b("transpose", values, perm=(1, 0, 2)), dims=(groups, 1, rows, size))  # [K, 1, C, D]
    visible = b("equal", b("reshape", of_row, dims=(1, rows)), b("reshape", sequence, dims=(new, 1)))  # [N, C]
    if index is not None:
        past = b("less_equal", b("reshape", place, dims=(1, rows)), b("reshape", index, dims=(new, 1)))
        visible = b("logical_and", visible, past)
    scores = b("affine", b.widen(b("matmul", query, keys)), scale=scale, shift=0.0)
    weights = b("softmax", b("where", visible, scores, otherwise=-math.inf))  # [K, Q/K, N, C]
    mixed = b("matmul", b("cast", weights, dtype=q.type.dtype), values)  # [K, Q/K, N, D]
    return b("reshape", b("transpose", mixed, perm=(2, 0, 1, 3)), dims=(new, _size(heads) * _size(size)))


def rope_attention(
    qkv: TensorType,
    cos: TensorType,
    sin: TensorType,
    state: TensorType | None,
    positions: TensorType | None,
    sequence: TensorType,
    index: TensorType | None = None,
    write: TensorType | None = None,
    context: TensorType | None = None,
    context_sequence: TensorType | None = None,
    context_index: TensorType | None = None,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> TensorType:
    """Split `qkv [N, (Q + 2K)·D]`, rotate q and k by the rows `positions [N, 1]` of the tables, then `attention`.

    Without positions cos and sin have a row for each new token, `[N, D/2]`; see `rope_rows`.
    """
    need(qkv.dims[1:] == ((num_heads + 2 * num_kv_heads) * head_dim,), f"{qkv} does not hold q, k and v")
    if positions is None:
        need(cos.dims[:1] == qkv.dims[:1], f"cos {cos} has no row for each token of {qkv}")
    else:
        need_int(positions)
        need(positions.dims == (qkv.dims[0], 1), f"positions {positions} of {qkv}")
    need(cos == sin and cos.dims[1:] == (head_dim // 2,), f"tables {cos} and {sin} for heads of {head_dim}")
    return TensorType(qkv.dtype, (qkv.dims[0], num_heads * head_dim))


def _rope_attention(
    b: Composer,
    qkv: Value,
    cos: Operand,
    sin: Operand,
    state: Operand,
    positions: Value | None,
    *indices: Operand,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> Value:
    rows = qkv.type.dims[0]
    parts, start = [], 0
    for heads in (num_heads, num_kv_heads, num_kv_heads):
        part = b("slice", qkv, axis=1, start=start, stop=start + heads * head_dim)
        parts.append(b("reshape", part, dims=(rows, heads, head_dim)))
        start += heads * head_dim
    q, k, v = parts
    c, s = cos, sin  # [N, D/2]
    if positions is not None:
        place = b("reshape", positions, dims=(rows,))
        c, s = b("take_rows", cos, place), b("take_rows", sin, place)
    with b.scope("rope_q"):
        q = b("rope", q, c, s)
    with b.scope("rope_k"):
        k = b("rope", k, c, s)
    return b("attention", q, k, v, state, *indices, scale=scale)


def moe_route(
    x: TensorType, gate: TensorType, correction_bias: TensorType | None = None, *, top_k: int, norm_min: float
) -> tuple[TensorType, TensorType]:
    """Choose `top_k` experts for each token and weigh them.

    Float32 logits `x @ gateᵀ`, softmax over all experts; the places of the top_k largest of softmax + correction_bias
    are the expert ids `[N, A]`; the *unbiased* probabilities there, divided by max(their sum, norm_min), are the
    weights `[N, A]` in x's dtype. Source: `Ernie4_5_MoeTopKRouter` of transformers.
    """
    need(len(x.dims) == 2 and gate.dims[1:] == x.dims[1:], f"gate {gate} for {x}")
    need(correction_bias is None or correction_bias.dims == gate.dims[:1], f"bias {correction_bias} of {gate}")
    need(1 <= top_k <= _size(gate.dims[0]), f"top {top_k} of {gate.dims[0]} experts")
    chosen = (x.dims[0], top_k)
    return TensorType("int32", chosen), TensorType(x.dtype, chosen)


def _moe_route(
    b: Composer, x: Value, gate: Operand, correction_bias: Operand = None, *, top_k: int, norm_min: float
) -> tuple[Value, Value]:
    wide = _type(gate).dtype
    logits = b("linear", b("cast", x, dtype=wide), gate)  # [N, E]
    probabilities = b("softmax", logits)
    scores = probabilities if correction_bias is None else b("add", probabilities, correction_bias)
    ids = b("top_k", scores, k=top_k)  # [N, A]
    chosen = b("take_along", probabilities, ids)
    total = b("clamp_min", b("sum", chosen, axis=1, keepdims=True), minimum=norm_min)
    return ids, b("cast", b("div", chosen, total), dtype=x.type.dtype)


def moe_experts(
    x: TensorType,
    ids: TensorType,
    weights: TensorType,
    experts_gate_up: TensorType,
    experts_down: TensorType,
    *,
    top_k: int,
) -> TensorType:
    """Σ_a weights[n, a] · down_e(swiglu(gate_up_e(x[n]))) with e = ids[n, a]; an id of -1 contributes nothing.

    `x [N, H]`, `ids` and `weights` `[N, A]`, `experts_gate_up [E, I, 2, H]`, `experts_down [E, H, I]`.
    """
    need_int(ids)
    experts, width, two, hidden = experts_gate_up.dims if len(experts_gate_up.dims) == 4 else (0, 0, 0, 0)
    need(two == 2 and x.dims[1:] == (hidden,), f"experts_gate_up {experts_gate_up} for {x}")
    need(experts_down.dims == (experts, hidden, width), f"experts_down {experts_down} after {experts_gate_up}")
    need(ids.dims == weights.dims == (x.dims[0], top_k), f"ids {ids} and weights {weights} for {x}")
    return x


def _moe_experts(
    b: Composer, x: Value, ids: Value, weights: Value, experts_gate_up: Operand, experts_down: Operand, *, top_k: int
) -> Value:
    # Every expert runs on every token and a table of weights, mostly zeros, picks: the meaning, at E / A the cost.
    rows, hidden = x.type.dims
    experts, width = _type(experts_gate_up).dims[:2]
    hot = b("one_hot", ids, depth=_size(experts), dtype=x.type.dtype)  # [N, A, E]
    picked = b("mul", hot, b("reshape", weights, dims=(rows, top_k, 1)))
    table = b("transpose", b("sum", picked, axis=1, keepdims=False), perm=(1, 0))  # [E, N]
    flat = b("reshape", experts_gate_up, dims=(experts, _size(width) * 2, hidden))
    up = b("matmul", b("reshape", x, dims=(1, rows, hidden)), b("transpose", flat, perm=(0, 2, 1)))  # [E, N, 2I]
    inner = b("swiglu", b("reshape", up, dims=(experts, rows, width, 2)))  # [E, N, I]
    out = b("matmul", inner, b("transpose", experts_down, perm=(0, 2, 1)))  # [E, N, H]
    return b("sum", b("mul", out, b("reshape", table, dims=(experts, rows, 1))), axis=0, keepdims=False)


def moe(
    x: TensorType,
    gate: TensorType,
    correction_bias: TensorType | None,
    experts_gate_up: TensorType,
    experts_down: TensorType,
    mask: TensorType | None = None,
    *,
    top_k: int,
    norm_min: float,
) -> TensorType:
    """`moe_route`, then `moe_experts`; nothing for the tokens where `mask [N]` is false, which are another pool's."""
    need(mask is None or (mask.dtype == "bool" and mask.dims == x.dims[:1]), f"mask {mask} of {x}")
    return x


def _moe(
    b: Composer,
    x: Value,
    gate: Operand,
    correction_bias: Operand,
    experts_gate_up: Operand,
    experts_down: Operand,
    mask: Value | None = None,
    *,
    top_k: int,
    norm_min: float,
) -> Value:
    with b.scope("route"):
        ids, weights = b.multi("moe_route", x, gate, correction_bias, top_k=top_k, norm_min=norm_min)
    if mask is not None:
        with b.scope("mask"):
            ids = b("where", b("reshape", mask, dims=(x.type.dims[0], 1)), ids, otherwise=-1)
    with b.scope("experts"):
        return b("moe_experts", x, ids, weights, experts_gate_up, experts_down, top_k=top_k)


COMPOSITES: tuple[Op, ...] = (
    define("composite", rms_norm, _rms_norm),
    define("composite", layer_norm, _layer_norm),
    define("composite", gelu, _gelu),
    define("composite", linear, _linear),
    define("composite", swiglu, _swiglu),
    define("composite", rope, _rope),
    define("composite", rope_rows, _rope_rows),
    define("composite", attention, _attention),
    define("composite", rope_attention, _rope_attention),
    define("composite", moe_route, _moe_route),
    define("composite", moe_experts, _moe_experts),
    define("composite", moe, _moe),
)
