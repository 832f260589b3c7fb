"""How each op of a lowered graph is said in ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ernie_rt.contract import BlockQuantized, DType, Operand, Value, Weight
from ernie_rt_onnx.attention import attention, rope_attention
from ernie_rt_onnx.emitter import ELEMENT_TYPES, Emitter
from ernie_rt_onnx.functions import DOMAIN, MASKED, SWIGLU


def elementwise(op: str, e: Emitter, a: Operand, b: Operand, *, out: str) -> None:
    e(op, e.name(a), e.name(b), out=out)


def unary(op: str, e: Emitter, x: Operand, *, out: str) -> None:
    e(op, e.name(x), out=out)


def cast(e: Emitter, x: Operand, *, dtype: DType, out: str) -> None:
    e("Cast", e.name(x), to=ELEMENT_TYPES[dtype], out=out)


def affine(e: Emitter, x: Operand, *, scale: float, shift: float, out: str) -> None:
    e("Add", e("Mul", e.name(x), _number(e, x, scale)), _number(e, x, shift), out=out)


def clamp_min(e: Emitter, x: Operand, *, minimum: float, out: str) -> None:
    e("Max", e.name(x), _number(e, x, minimum), out=out)


def rsqrt(e: Emitter, x: Operand, *, out: str) -> None:
    e("Div", _number(e, x, 1.0), e("Sqrt", e.name(x)), out=out)  # CUDA has no Reciprocal in bfloat16


def softmax(e: Emitter, x: Operand, *, out: str) -> None:
    e("Softmax", e.name(x), axis=-1, out=out)


def sum_(e: Emitter, x: Operand, *, axis: int, keepdims: bool, out: str) -> None:
    e("ReduceSum", e.name(x), e.integers(axis), keepdims=int(keepdims), out=out)


def top_k(e: Emitter, x: Operand, *, k: int, out: str) -> None:
    e.multi("TopK", e.name(x), e.integers(k), axis=-1, outputs=(f"{out}.values", f"{out}.wide"))
    e("Cast", f"{out}.wide", to=ELEMENT_TYPES["int32"], out=out)


def take_along(e: Emitter, x: Operand, ids: Operand, *, out: str) -> None:
    e("GatherElements", e.name(x), e.name(ids), axis=-1, out=out)


def one_hot(e: Emitter, ids: Operand, *, depth: int, dtype: DType, out: str) -> None:
    places = e.constant(np.arange(depth), np.int32)
    same = e("Equal", e("Unsqueeze", e.name(ids), e.integers(-1)), places)
    e("Cast", same, to=ELEMENT_TYPES[dtype], out=out)


def where(e: Emitter, mask: Operand, x: Operand, *, otherwise: float, out: str) -> None:
    e("Where", e.name(mask), e.name(x), _number(e, x, otherwise), out=out)


def reshape(e: Emitter, x: Operand, *, dims: tuple[int | str, ...], out: str) -> None:
    e("Reshape", e.name(x), e.integers(*(-1 if isinstance(dim, str) else dim for dim in dims)), out=out)


def transpose(e: Emitter, x: Operand, *, perm: tuple[int, ...], out: str) -> None:
    e("Transpose", e.name(x), perm=perm, out=out)


def slice_(e: Emitter, x: Operand, *, axis: int, start: int, stop: int, out: str) -> None:
    e("Slice", e.name(x), e.integers(start), e.integers(stop), e.integers(axis), out=out)


def concat(e: Emitter, a: Operand, b: Operand, *, axis: int, out: str) -> None:
    e("Concat", e.name(a), e.name(b), axis=axis, out=out)


def take_rows(e: Emitter, table: Operand, ids: Operand, *, out: str) -> None:
    if isinstance(table, Weight) and isinstance(table.storage, BlockQuantized):
        rows, columns = table.type.shape()
        bits, block = table.storage.bits, table.storage.block
        codes, scales = e.codes(table, rows, columns * bits // 8), e.scales(table, rows, columns // block)
        e(
            "GatherBlockQuantized", codes, e.name(ids), scales, out=out,
            bits=bits, block_size=block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
    else:
        e("Gather", e.name(table), e.name(ids), axis=0, out=out)


def rms_norm(e: Emitter, x: Operand, weight: Operand, *, eps: float, out: str) -> None:
    e("RMSNormalization", e.name(x), e.name(weight), axis=-1, epsilon=eps, out=out)


def layer_norm(e: Emitter, x: Operand, weight: Operand, bias: Operand, *, eps: float, out: str) -> None:
    e("LayerNormalization", e.name(x), e.name(weight), e.name(bias), axis=-1, epsilon=eps, out=out)


def gelu(e: Emitter, x: Operand, *, form: str, out: str) -> None:
    if form == "erf":
        e("Gelu", e.name(x), out=out)
    else:
        e("Mul", e.name(x), e("Sigmoid", e("Mul", e.name(x), _number(e, x, 1.702))), out=out)


def in_range(e: Emitter, x: Operand, *, start: int, stop: int, out: str) -> None:
    before, after = e("Less", e.name(x), e.constant(start, np.int32)), e("Less", e.name(x), e.constant(stop, np.int32))
    e("And", e("Not", before), after, out=out)


def linear(e: Emitter, x: Operand, weight: Operand, bias: Operand, *, out: str) -> None:
    assert isinstance(weight, Weight) and (bias is None or isinstance(bias, Weight))
    *dims, columns = weight.type.shape(e.bindings)
    rows = math.prod(dims)
    flat = out if len(dims) == 1 else f"{out}.flat"
    offset = () if bias is None else (e.weight(bias, rows),)
    if isinstance(weight.storage, BlockQuantized):
        bits, block = weight.storage.bits, weight.storage.block
        count = columns // block
        e(
            "MatMulNBits", e.name(x), e.codes(weight, rows, count, block * bits // 8), e.scales(weight, rows, count),
            *(("", "", *offset) if offset else ()), out=flat,
            K=columns, N=rows, bits=bits, block_size=block, accuracy_level=e.accuracy_level,
        )  # fmt: skip
    else:
        e("Gemm", e.name(x), e.weight(weight, rows, columns), *offset, transB=1, out=flat)
    if flat != out:
        e("Reshape", flat, e.integers(-1, *dims), out=out)


def swiglu(e: Emitter, x: Operand, *, out: str) -> None:
    gate, up = (e("Gather", e.name(x), e.constant(i, np.int64), axis=-1) for i in (0, 1))
    e("Mul", e("Mul", gate, e("Sigmoid", gate)), up, out=out)


def moe_route(
    e: Emitter,
    x: Operand,
    gate: Operand,
    correction_bias: Operand,
    *,
    top_k: int,
    norm_min: float,
    out: tuple[str, ...],
) -> None:
    assert isinstance(gate, Weight) and isinstance(x, Value)
    logits = e("Gemm", e("Cast", e.name(x), to=ELEMENT_TYPES["float32"]), e.weight(gate), transB=1)
    probabilities = scores = e("Softmax", logits, axis=-1)
    if correction_bias is not None:
        scores = e("Add", scores, e.name(correction_bias))
    ids, weights = out
    e.multi("TopK", scores, e.integers(top_k), axis=-1, outputs=(f"{ids}.values", f"{ids}.wide"))
    kept = e("GatherElements", probabilities, f"{ids}.wide", axis=1)
    total = e("Max", e("ReduceSum", kept, e.integers(1)), e.constant(norm_min, np.float32))
    e("Cast", f"{ids}.wide", to=ELEMENT_TYPES["int32"], out=ids)
    e("Cast", e("Div", kept, total), to=ELEMENT_TYPES[x.type.dtype], out=weights)


def moe_experts(
    e: Emitter,
    x: Operand,
    ids: Operand,
    weights: Operand,
    experts_gate_up: Operand,
    experts_down: Operand,
    *,
    top_k: int,
    out: str,
) -> None:
    """The experts' own softmax makes weights that sum to 1 of log w, so what the weights sum to is multiplied back."""
    assert isinstance(experts_gate_up, Weight)
    experts = experts_gate_up.type.shape()[0]
    wide = e("Cast", e.name(weights), to=ELEMENT_TYPES["float32"])
    known = e("Not", e("Less", e.name(ids), e.constant(0, np.int32)))
    shares = e("Where", known, wide, e.constant(0, np.float32))  # [N, A]
    hot = e("Equal", e("Unsqueeze", e.name(ids), e.integers(-1)), e.constant(np.arange(experts), np.int32))
    picked = e("Where", hot, e("Unsqueeze", shares, e.integers(-1)), e.constant(0, np.float32))  # [N, A, E]
    table = e("ReduceSum", picked, e.integers(1), keepdims=0)  # [N, E]
    total = e("ReduceSum", shares, e.integers(1), keepdims=1)  # [N, 1]
    scores = e("Max", e("Log", table), e.constant(MASKED, np.float32))
    mixed = _experts(e, x, e("CastLike", scores, e.name(x)), experts_gate_up, experts_down, top_k)
    e("Mul", mixed, e("CastLike", total, e.name(x)), out=out)


def _experts(e: Emitter, x: Operand, scores: str, gate_up: Weight, down: Operand, top_k: int) -> str:
    """Stock experts by scores `[N, E]`, the softmax of whose `top_k` largest are the weights."""
    name, parts, given = _expert_parts(e, gate_up, down, e.scales)
    if name == "MoE":
        return e("MoE", e.name(x), scores, parts[0], "", parts[1], k=top_k, **SWIGLU)
    bits = given.pop("bits")
    return e(
        "QMoE", e.name(x), scores, *parts[:2], "", *parts[2:],
        k=top_k, expert_weight_bits=bits, weights_prepacked=0, **given, **SWIGLU,
    )  # fmt: skip


def _expert_parts(
    e: Emitter, gate_up: Weight, down: Operand, scales: Callable[..., str]
) -> tuple[str, list[str], dict[str, Any]]:
    """Which function runs these experts, with which weights, the scales named by `scales`, and further attributes."""
    assert isinstance(down, Weight)
    experts, width, _, hidden = gate_up.type.shape()
    storage = gate_up.storage
    if not isinstance(storage, BlockQuantized):
        return "MoE", [e.weight(gate_up, experts, 2 * width, hidden), e.weight(down)], {}
    bits, block = storage.bits, storage.block
    parts = []
    for weight, rows, columns in ((gate_up, 2 * width, hidden), (down, hidden, width)):
        parts.append(e.codes(weight, experts, rows, columns * bits // 8))
        parts.append(scales(weight, experts, rows, columns // block))
    return "QMoE", parts, {"bits": bits, "block_size": block, "accuracy_level": e.accuracy_level}


def moe(
    e: Emitter,
    x: Operand,
    gate: Operand,
    correction_bias: Operand,
    experts_gate_up: Operand,
    experts_down: Operand,
    mask: Operand,
    *,
    top_k: int,
    norm_min: float,
    out: str,
) -> None:
    """With a mask, of the rows where it is true, between zeros."""
    assert isinstance(gate, Weight) and isinstance(experts_gate_up, Weight)
    experts = gate.type.shape()[0]
    bias = e.constant(np.zeros(experts), np.float32) if correction_bias is None else e.name(correction_bias)
    name, parts, given = _expert_parts(e, experts_gate_up, experts_down, e.stored_scales)
    run = partial(e, name, domain=DOMAIN, top_k=top_k, **given)
    if mask is None:
        run(e.name(x), e.weight(gate), bias, *parts, out=out)
        return
    rows = e.once(f"{e.name(mask)}.rows", lambda name: e("Transpose", e("NonZero", e.name(mask)), out=name))  # [n, 1]
    chosen = run(e("GatherND", e.name(x), rows), e.weight(gate), bias, *parts)
    zeros = e("CastLike", e("ConstantOfShape", e("Shape", e.name(x))), e.name(x))
    e("ScatterND", zeros, rows, chosen, out=out)


def _number(e: Emitter, like: Operand, number: float) -> str:
    """A constant of the dtype of a value."""
    assert like is not None
    return (
        e("CastLike", e.constant(number, np.float32), e.name(like))
        if like.type.dtype == "bfloat16"
        else e.constant(number, like.type.dtype)
    )


EMIT: Final[Mapping[str, Callable[..., None]]] = MappingProxyType(
    {
        "cast": cast,
        "add": partial(elementwise, "Add"),
        "sub": partial(elementwise, "Sub"),
        "mul": partial(elementwise, "Mul"),
        "div": partial(elementwise, "Div"),
        "matmul": partial(elementwise, "MatMul"),
        "equal": partial(elementwise, "Equal"),
        "less_equal": partial(elementwise, "LessOrEqual"),
        "logical_and": partial(elementwise, "And"),
        "in_range": in_range,
        "sigmoid": partial(unary, "Sigmoid"),
        "erf": partial(unary, "Erf"),
        "affine": affine,
        "clamp_min": clamp_min,
        "rsqrt": rsqrt,
        "softmax": softmax,
        "sum": sum_,
        "top_k": top_k,
        "take_rows": take_rows,
        "take_along": take_along,
        "one_hot": one_hot,
        "where": where,
        "reshape": reshape,
        "transpose": transpose,
        "slice": slice_,
        "concat": concat,
        "rms_norm": rms_norm,
        "layer_norm": layer_norm,
        "gelu": gelu,
        "linear": linear,
        "swiglu": swiglu,
        "rope_attention": rope_attention,
        "attention": attention,
        "moe_route": moe_route,
        "moe_experts": moe_experts,
        "moe": moe,
    }
)
"""Of weights in any order but tiles. Not `cache_update`: rows of a cache are written by attention alone."""
