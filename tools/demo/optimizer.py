"""Muon for the matrices, AdamW for the rest.

Muon (Jordan et al., 2024) takes the momentum of a matrix to about the nearest orthogonal one by a few Newton-Schulz
steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

MUON_RATE: Final = 0.02
ADAM_RATE: Final = 0.004
ROUTER_RATE: Final = 0.001
MOMENTUM: Final = 0.95
DECAY: Final = 0.01


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal; a parameter of three axes is a stack of matrices."""

    def __init__(self, parameters: Iterable[nn.Parameter], dtype: torch.dtype, lr: float = MUON_RATE) -> None:
        super().__init__(list(parameters), {"lr": lr})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonal(parameter.grad.lerp(momentum, MOMENTUM), self.dtype)
                rows, columns = parameter.shape[-2:]
                parameter.mul_(1 - group["lr"] * DECAY)
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ, or of each in a stack: five steps of a quintic that pulls all of S to 1."""
    x: Tensor = matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)).to(dtype)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    x = x.to(matrix.dtype)
    return x.mT if matrix.shape[-2] > matrix.shape[-1] else x


def optimizers(named: Iterable[tuple[str, nn.Parameter]], dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Both, for parameters with their names: embedding, norms and routers go to AdamW; Muon multiplies in `dtype`."""
    matrices: list[nn.Parameter] = []
    routers: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        if name.endswith(".gate.weight"):
            routers.append(parameter)
        else:
            (others if parameter.ndim == 1 or name == "embed.weight" else matrices).append(parameter)
    groups = [{"params": others, "lr": ADAM_RATE}, {"params": routers, "lr": ROUTER_RATE}]
    return [Muon(matrices, dtype), torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)]
