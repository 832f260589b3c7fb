"""`mlp_block`: two or three launches for few rows, eager's composites for more."""

from __future__ import annotations

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.kernels.linear import FEW_ROWS, linear, swiglu_linear
from ernie_rt_eager import ops


def refusal(node: Node) -> str | None:
    """Why the kernels cannot run this node, or None: they take every width."""
    return None


def mlp_block(
    x: Tensor,
    norm: Tensor,
    gate_up: Tensor,
    gate_up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    *,
    eps: float,
    pdl: bool = False,
) -> Tensor:
    """The block of this name."""
    return mlp(x, gate_up, gate_up_bias, down, down_bias, norm=norm, eps=eps, residual=x, pdl=pdl)


def mlp(
    x: Tensor,
    gate_up: Tensor,
    gate_up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    *,
    residual: Tensor,
    norm: Tensor | None = None,
    eps: float = 0.0,
    pdl: bool = False,
) -> Tensor:
    """residual + down(swiglu(gate_up(x))), of rms_norm(x) where a norm is given."""
    if len(x) <= FEW_ROWS:
        y = swiglu_linear(x, gate_up, gate_up_bias, norm=norm, eps=eps, pdl=pdl)
        return linear(y, down, down_bias, residual=residual, pdl=pdl)
    if norm is not None:
        x = ops.rms_norm(x, norm, eps=eps)
    return residual + ops.linear(ops.swiglu(ops.linear(x, gate_up, gate_up_bias)), down, down_bias)
