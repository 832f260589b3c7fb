"""The block of experts: few rows read each chosen expert for themselves, more are grouped by expert."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.blocks.mlp import mlp
from ernie_rt_cudagraph.kernels.experts import few_rows
from ernie_rt_cudagraph.kernels.routing import MAX_EXPERTS, begin, choose
from ernie_rt_cudagraph.kernels.tiles import many_rows

FEW_ROWS: Final = 4
"""Up to so many tokens seldom choose the same expert, and reading one twice costs less than grouping them."""


def moe_block(
    x: Tensor,
    norm: Tensor,
    gate: Tensor,
    correction_bias: Tensor | None,
    experts_gate_up: Tensor,
    experts_down: Tensor,
    shared_gate_up: Tensor | None,
    shared_gate_up_bias: Tensor | None,
    shared_down: Tensor | None,
    shared_down_bias: Tensor | None,
    *second: None,
    top_k: int,
    norm_min: float,
    eps: float,
    live: Tensor,
    pdl: bool,
) -> Tensor:
    """The block's output `[N, H]`. Rows from `live [1]` on are padding: no expert is read for them, and what stands in
    their output is nobody's."""
    few = len(x) <= FEW_ROWS
    with_router = (shared_gate_up, shared_gate_up_bias) if few else (None, None)
    normed, logits, inner = begin(x, norm, gate, *with_router, eps=eps, pdl=pdl)
    if few:
        return few_rows(
            x, normed, logits, correction_bias, experts_gate_up, experts_down, inner, shared_down, shared_down_bias,
            top_k=top_k, norm_min=norm_min, live=live, pdl=pdl,
        )  # fmt: skip
    ids, weights = choose(logits, correction_bias, top_k=top_k, norm_min=norm_min, dtype=x.dtype, live=live, pdl=pdl)
    beside = x
    if shared_gate_up is not None and shared_down is not None:
        beside = mlp(normed, shared_gate_up, shared_gate_up_bias, shared_down, shared_down_bias, residual=x, pdl=pdl)
    return many_rows(normed, ids, weights, experts_gate_up, experts_down, beside, pdl=pdl)


def moe_experts(
    x: Tensor, ids: Tensor, weights: Tensor, experts_gate_up: Tensor, experts_down: Tensor, *, top_k: int, pdl: bool
) -> Tensor:
    """The composite of that name, for graphs of which a tap splits the block."""
    return many_rows(x, ids.contiguous(), weights, experts_gate_up, experts_down, pdl=pdl)


def refusal(node: Node) -> str | None:
    """Why a `moe_block` is not computed here, or None."""
    gate = node.operands["gate"]
    assert gate is not None
    experts = gate.type.dims[0]
    assert isinstance(experts, int)
    if node.operands["mask"] is not None:
        return "its kernels have one pool of experts"
    if experts > MAX_EXPERTS:
        return f"{experts} experts; the kernels choose among {MAX_EXPERTS} at most"
    return None
