"""The blocks: what a model file emits, and the composites each one decomposes into."""

from __future__ import annotations

from ernie_rt.graph.op import Composer, Op, define
from ernie_rt.graph.primitives import need, need_int
from ernie_rt.graph.types import Attr, Operand, State, TensorType, Value


def embed(
    ids: TensorType, table: TensorType, features: TensorType | None = None, features_row: TensorType | None = None
) -> TensorType:
    """table[ids], or features[features_row] where that row is not 0.

    `ids [N]`, `table [V, H]` gives `[N, H]`; of `features [F, H]` row 0 is zeros, `features_row [N]`.
    """
    need_int(ids)
    need(len(table.dims) == 2, f"table {table} is not [V, H]")
    need((features is None) == (features_row is None), "features need the row of each token")
    if features is not None and features_row is not None:
        need_int(features_row)
        need(features.dims[1:] == table.dims[1:] and features.dtype == table.dtype, f"features {features} for {table}")
        need(features_row.dims == ids.dims, f"features_row {features_row} for ids {ids}")
    return TensorType(table.dtype, (*ids.dims, table.dims[1]))


def _embed(
    b: Composer, ids: Value, table: Operand, features: Value | None = None, features_row: Value | None = None
) -> Value:
    rows = b("take_rows", table, ids)
    if features is None or features_row is None:
        return rows
    of_text = b("reshape", b("in_range", features_row, start=0, stop=1), dims=(ids.type.dims[0], 1))  # [N, 1]
    return b("add", b("where", of_text, rows, otherwise=0.0), b("take_rows", features, features_row))


def attention_block(
    x: TensorType,
    norm: TensorType,
    qkv: TensorType,
    qkv_bias: TensorType | None,
    out: TensorType,
    out_bias: TensorType | None,
    cos: TensorType,
    sin: TensorType,
    state: TensorType,
    positions: TensorType | None,
    sequence: TensorType,
    index: TensorType,
    write: TensorType,
    context: TensorType,
    context_sequence: TensorType,
    context_index: TensorType,
    *,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> TensorType:
    """x + out(rope_attention(qkv(rms_norm(x))))"""
    need(qkv.dims == ((num_heads + 2 * num_kv_heads) * head_dim, x.dims[1]), f"qkv {qkv} for {x}")
    need(out.dims == (x.dims[1], num_heads * head_dim), f"out {out} for {x}")
    return x


def _attention_block(
    b: Composer,
    x: Value,
    norm: Operand,
    qkv: Operand,
    qkv_bias: Operand,
    out: Operand,
    out_bias: Operand,
    cos: Operand,
    sin: Operand,
    state: State,
    *indices: Operand,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> Value:
    with b.scope("norm"):
        y = b("rms_norm", x, norm, eps=eps)
    with b.scope("qkv"):
        y = b("linear", y, qkv, qkv_bias)
    with b.scope("attend"):
        y = b(
            "rope_attention", y, cos, sin, state, *indices,
            num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, scale=scale,
        )  # fmt: skip
    with b.scope("out"):
        y = b("linear", y, out, out_bias)
    with b.scope("residual"):
        return b("add", x, y)


def mlp_block(
    x: TensorType,
    norm: TensorType,
    gate_up: TensorType,
    gate_up_bias: TensorType | None,
    down: TensorType,
    down_bias: TensorType | None,
    *,
    eps: float,
) -> TensorType:
    """x + down(swiglu(gate_up(rms_norm(x)))) with `gate_up [I, 2, H]` and `down [H, I]`"""
    need(gate_up.dims[1:] == (2, x.dims[1]), f"gate_up {gate_up} for {x}")
    need(down.dims == (x.dims[1], gate_up.dims[0]), f"down {down} after gate_up {gate_up}")
    return x


def _mlp(b: Composer, x: Value, gate_up: Operand, gate_up_bias: Operand, down: Operand, down_bias: Operand) -> Value:
    with b.scope("gate_up"):
        y = b("linear", x, gate_up, gate_up_bias)
    with b.scope("swiglu"):
        y = b("swiglu", y)
    with b.scope("down"):
        return b("linear", y, down, down_bias)


def _mlp_block(
    b: Composer,
    x: Value,
    norm: Operand,
    gate_up: Operand,
    gate_up_bias: Operand,
    down: Operand,
    down_bias: Operand,
    *,
    eps: float,
) -> Value:
    with b.scope("norm"):
        y = b("rms_norm", x, norm, eps=eps)
    y = _mlp(b, y, gate_up, gate_up_bias, down, down_bias)
    with b.scope("residual"):
        return b("add", x, y)


def moe_block(
    x: TensorType,
    norm: TensorType,
    gate: TensorType,
    correction_bias: TensorType | None,
    experts_gate_up: TensorType,
    experts_down: TensorType,
    shared_gate_up: TensorType | None,
    shared_gate_up_bias: TensorType | None,
    shared_down: TensorType | None,
    shared_down_bias: TensorType | None,
    mask: TensorType | None = None,
    vision_mask: TensorType | None = None,
    vision_gate: TensorType | None = None,
    vision_correction_bias: TensorType | None = None,
    vision_gate_up: TensorType | None = None,
    vision_down: TensorType | None = None,
    *,
    top_k: int,
    norm_min: float,
    eps: float,
) -> TensorType:
    """x + moe(y) + shared(y) with y = rms_norm(x); the shared experts are one MLP, neither gated nor scaled.

    With masks `[N]` a second pool of experts serves the tokens of `vision_mask`, and the first those of `mask` alone.
    """
    need((shared_gate_up is None) == (shared_down is None), "shared experts need both gate_up and down")
    second = (mask, vision_mask, vision_gate, vision_gate_up, vision_down)
    need(
        None not in second or not any((*second, vision_correction_bias)),
        "a second pool needs masks, gate and experts",
    )
    return x


def _moe_block(
    b: Composer,
    x: Value,
    norm: Operand,
    gate: Operand,
    correction_bias: Operand,
    experts_gate_up: Operand,
    experts_down: Operand,
    shared_gate_up: Operand,
    shared_gate_up_bias: Operand,
    shared_down: Operand,
    shared_down_bias: Operand,
    mask: Operand = None,
    vision_mask: Operand = None,
    vision_gate: Operand = None,
    vision_correction_bias: Operand = None,
    vision_gate_up: Operand = None,
    vision_down: Operand = None,
    *,
    top_k: int,
    norm_min: float,
    eps: float,
) -> Value:
    with b.scope("norm"):
        y = b("rms_norm", x, norm, eps=eps)
    attrs: dict[str, Attr] = {"top_k": top_k, "norm_min": norm_min}
    routed = b("moe", y, gate, correction_bias, experts_gate_up, experts_down, mask, **attrs)
    if vision_mask is not None:
        with b.scope("vision"):
            seen = b("moe", y, vision_gate, vision_correction_bias, vision_gate_up, vision_down, vision_mask, **attrs)
        with b.scope("pools"):
            routed = b("add", routed, seen)
    if shared_gate_up is not None:
        with b.scope("shared"):
            shared = _mlp(b, y, shared_gate_up, shared_gate_up_bias, shared_down, shared_down_bias)
        with b.scope("combine"):
            routed = b("add", routed, shared)
    with b.scope("residual"):
        return b("add", x, routed)


def head(
    x: TensorType,
    norm: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    rows: TensorType,
    *,
    eps: float,
) -> TensorType:
    """The logits `[L, V]` of the rows asked for: linear(rms_norm(x[rows])), in float32 (float64 in a float64 graph)."""
    need_int(rows)
    need(weight.dims[1:] == x.dims[1:], f"head {weight} for {x}")
    return TensorType(x.wide, (rows.dims[0], weight.dims[0]))


def _head(b: Composer, x: Value, norm: Operand, weight: Operand, bias: Operand, rows: Value, *, eps: float) -> Value:
    with b.scope("rows"):
        y = b("take_rows", x, rows)
    with b.scope("norm"):
        y = b("rms_norm", y, norm, eps=eps)
    with b.scope("logits"):
        y = b("linear", y, weight, bias)
    return b.widen(y)


BLOCKS: tuple[Op, ...] = (
    define("block", embed, _embed),
    define("block", attention_block, _attention_block),
    define("block", mlp_block, _mlp_block),
    define("block", moe_block, _moe_block),
    define("block", head, _head),
)
