"""The block of experts: few rows read each chosen expert for themselves, more are grouped by expert."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.blocks.mlp import mlp
from ernie_rt_cudagraph.kernels.experts import few_rows
from ernie_rt_cudagraph.kernels.linear import FEW_ROWS
from ernie_rt_cudagraph.kernels.routing import MAX_EXPERTS, begin, choose
from ernie_rt_cudagraph.kernels.tiles import many_rows
from ernie_rt_eager import ops

ONE_BY_ONE: Final = 1
"""Up to so many tokens read their experts one by one; of two and more, grouping them costs less than what is read
twice."""


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
    mask: Tensor | None = None,
    vision_mask: Tensor | None = None,
    vision_gate: Tensor | None = None,
    vision_correction_bias: Tensor | None = None,
    vision_gate_up: Tensor | None = None,
    vision_down: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The block's output `[N, H]`: of one pool of experts, or of two, of which each adds to the tokens of its mask.

    `options` are those of `pool`.
    """
    shared = shared_gate_up, shared_gate_up_bias, shared_down, shared_down_bias
    y = pool(x, x, norm, gate, correction_bias, experts_gate_up, experts_down, mask, *shared, **options)
    if vision_gate is None or vision_gate_up is None or vision_down is None:
        return y
    return pool(
        x, y, norm, vision_gate, vision_correction_bias, vision_gate_up, vision_down, vision_mask, **options
    )  # fmt: skip


def pool(
    x: Tensor,
    residual: Tensor,
    norm: Tensor,
    gate: Tensor,
    correction_bias: Tensor | None,
    gate_up: Tensor,
    down: Tensor,
    mask: Tensor | None,
    shared_gate_up: Tensor | None = None,
    shared_gate_up_bias: Tensor | None = None,
    shared_down: Tensor | None = None,
    shared_down_bias: Tensor | None = None,
    *,
    top_k: int,
    norm_min: float,
    eps: float,
    live: Tensor,
    pdl: bool,
) -> Tensor:
    """residual + the chosen experts of rms_norm(x), for tokens of the mask, + the shared ones, for all `[N, H]`.

    Rows from `live [1]` on are padding: no expert is read for them, and what stands in their output is nobody's. With
    `pdl` the kernels of tokens one by one begin early. Those of grouped ones do not: steps took longer with it.
    """
    routing: dict[str, Any] = {"top_k": top_k, "norm_min": norm_min, "mask": mask, "live": live}
    if len(x) <= ONE_BY_ONE:
        normed, logits, inner = begin(x, norm, gate, shared_gate_up, shared_gate_up_bias, eps=eps, pdl=pdl)
        return few_rows(
            residual, normed, logits, correction_bias, gate_up, down, inner, shared_down, shared_down_bias, **routing,
            pdl=pdl,
        )  # fmt: skip
    if len(x) <= FEW_ROWS:
        normed, logits, _ = begin(x, norm, gate, None, None, eps=eps, pdl=False)
    else:
        normed = ops.rms_norm(x, norm, eps=eps)
        logits = ops.linear(normed.float(), gate)
    ids, weights = choose(logits, correction_bias, dtype=x.dtype, **routing)
    if shared_gate_up is not None and shared_down is not None:
        residual = mlp(normed, shared_gate_up, shared_gate_up_bias, shared_down, shared_down_bias, residual=residual)
    return many_rows(normed, ids, weights, gate_up, down, residual)


def moe_experts(
    x: Tensor, ids: Tensor, weights: Tensor, experts_gate_up: Tensor, experts_down: Tensor, *, top_k: int
) -> Tensor:
    """The composite of that name, for graphs of which a tap splits the block."""
    return many_rows(x, ids.contiguous(), weights, experts_gate_up, experts_down)


def refusal(node: Node) -> str | None:
    """Why a `moe_block` is not computed here, or None."""
    for gate in (node.operands["gate"], node.operands["vision_gate"]):
        experts = 0 if gate is None else gate.type.dims[0]
        assert isinstance(experts, int)
        if experts > MAX_EXPERTS:
            return f"{experts} experts; the kernels choose among {MAX_EXPERTS} at most"
    return None
