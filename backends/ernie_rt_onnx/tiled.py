"""Pieces of a graph whose weights lie in tiles, as the library's operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ernie_rt.contract import Node, Operand, Weight
from ernie_rt_onnx.attention import attend_in_place
from ernie_rt_onnx.emitter import Emitter
from ernie_rt_onnx.functions import DOMAIN
from ernie_rt_onnx.planner import is_tiled

EXPERTS: Final = ("experts_gate_up", "experts_down")
MATRICES: Final[Mapping[str, tuple[str, ...]]] = {
    "mlp_block": ("gate_up", "down"),
    "moe_block": (*EXPERTS, "shared_gate_up", "shared_down", "vision_gate_up", "vision_down"),
    "moe": EXPERTS,
    "moe_experts": EXPERTS,
    "attention_block": ("qkv", "out"),
    "head": ("weight",),
}
"""The operands of an op that have to be in tiles."""


def is_in_tiles(node: Node) -> bool:
    """Whether the matrices of a block, or of experts, are all in tiles, and in blocks of one size."""
    weights = [node.operands[name] for name in MATRICES.get(node.op, ())]
    blocks = {w.storage.activation_block for w in weights if isinstance(w, Weight)}
    return len(blocks) == 1 and all(w is None or is_tiled(w) for w in weights)


def parts(e: Emitter, weight: Operand) -> tuple[str, str]:
    """Codes and scales as they are stored; no names for a weight that is absent."""
    if weight is None:
        return "", ""
    assert isinstance(weight, Weight)
    codes, scales = (weight.parts[part].shape(e.bindings) for part in ("codes", "scales"))
    return e.codes(weight, *codes), e.stored_scales(weight, *scales)


def take_rows(e: Emitter, table: Operand, ids: Operand, *, out: str) -> None:
    assert isinstance(table, Weight)
    rows, columns = table.type.shape(e.bindings)
    e("TiledRows", *parts(e, table), e.name(ids), out=out, domain=DOMAIN, rows=rows, columns=columns)


def linear(e: Emitter, x: Operand, weight: Operand, bias: Operand, *, out: str) -> None:
    _linear(e, e.name(x), weight, bias, out=out)


def _linear(
    e: Emitter,
    x: str,
    weight: Operand,
    bias: Operand,
    norm: Operand = None,
    residual: Operand = None,
    *,
    eps: float = 0.0,
    out: str,
) -> str:
    assert isinstance(weight, Weight)
    rows = weight.type.shape(e.bindings)[0]
    further = (e.name(bias), e.name(norm), e.name(residual))
    return e("TiledLinear", x, *parts(e, weight), *further, out=out, domain=DOMAIN, rows=rows, eps=eps)


def attention_block(
    e: Emitter,
    x: Operand,
    norm: Operand,
    qkv: Operand,
    qkv_bias: Operand,
    out_weight: Operand,
    out_bias: Operand,
    cos: Operand,
    sin: Operand,
    state: Operand,
    positions: Operand,
    *indices: Operand,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    out: str,
) -> None:
    rows = _linear(e, e.name(x), qkv, qkv_bias, norm, eps=eps, out=f"{out}.qkv")
    attended = attend_in_place(e, rows, cos, sin, state, positions, num_heads, num_kv_heads, scale, f"{out}.attended")
    _linear(e, attended, out_weight, out_bias, residual=x, out=out)


def head(
    e: Emitter, x: Operand, norm: Operand, weight: Operand, bias: Operand, rows: Operand, *, eps: float, out: str
) -> None:
    _linear(e, e("Gather", e.name(x), e.name(rows), axis=0), weight, bias, norm, eps=eps, out=out)


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
    routing = {"ids": ids, "weights": weights}
    _feed_forward(e, x, routing, (experts_gate_up, experts_down), out=out, top_k=top_k)


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
    routing = {"router": gate, "correction_bias": correction_bias, "mask": mask}
    _feed_forward(e, x, routing, (experts_gate_up, experts_down), out=out, top_k=top_k, norm_min=norm_min)


def mlp_block(
    e: Emitter,
    x: Operand,
    norm: Operand,
    gate_up: Operand,
    gate_up_bias: Operand,
    down: Operand,
    down_bias: Operand,
    *,
    eps: float,
    out: str,
) -> None:
    mlp = (gate_up, gate_up_bias, down, down_bias)
    _feed_forward(e, x, {"norm": norm}, mlp=mlp, out=out, eps=eps, residual=1)


def moe_block(
    e: Emitter,
    x: Operand,
    norm: Operand,
    gate: Operand,
    correction_bias: Operand,
    experts_gate_up: Operand,
    experts_down: Operand,
    shared_gate_up: Operand,
    shared_gate_up_bias: Operand,
    shared_down: Operand,
    shared_down_bias: Operand,
    mask: Operand,
    vision_mask: Operand,
    vision_gate: Operand,
    vision_correction_bias: Operand,
    vision_gate_up: Operand,
    vision_down: Operand,
    top_k: int,
    norm_min: float,
    eps: float,
    out: str,
) -> None:
    attrs: dict[str, Any] = {"top_k": top_k, "norm_min": norm_min, "eps": eps}
    routing = {"norm": norm, "router": gate, "correction_bias": correction_bias, "mask": mask}
    experts = (experts_gate_up, experts_down)
    mlp = (shared_gate_up, shared_gate_up_bias, shared_down, shared_down_bias)
    first = out if mask is None else f"{out}.first"
    _feed_forward(e, x, routing, experts, mlp, out=first, residual=1, **attrs)
    if mask is not None:
        routing = {"norm": norm, "router": vision_gate, "correction_bias": vision_correction_bias, "mask": vision_mask}
        _feed_forward(e, x, routing, (vision_gate_up, vision_down), out=f"{out}.second", **attrs)
        e("Add", first, f"{out}.second", out=out)


def _feed_forward(
    e: Emitter,
    x: Operand,
    given: dict[str, Operand],
    experts: tuple[Operand, Operand] = (None, None),
    mlp: tuple[Operand, ...] = (None, None, None, None),
    *,
    out: str,
    **attrs: Any,
) -> None:
    gate_up, gate_up_bias, down, down_bias = mlp
    names = [e.name(given.get(name)) for name in ("norm", "router", "correction_bias", "ids", "weights")]
    for weight in experts:
        names += parts(e, weight)
    for weight, bias in ((gate_up, gate_up_bias), (down, down_bias)):
        names += (*parts(e, weight), e.name(bias))
    if (mask := given.get("mask")) is not None:
        names.append(e.name(mask))
    usual = {"top_k": 0, "norm_min": 0.0, "eps": 0.0, "residual": 0, "scarce": int(e.scarce)}
    e("TiledFeedForward", e.name(x), *names, out=out, domain=DOMAIN, **usual | attrs)


EMIT: Final[Mapping[str, Callable[..., None]]] = MappingProxyType(
    {
        "take_rows": take_rows,
        "linear": linear,
        "moe_experts": moe_experts,
        "moe": moe,
        "mlp_block": mlp_block,
        "moe_block": moe_block,
        "attention_block": attention_block,
        "head": head,
    }
)
