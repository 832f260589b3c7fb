"""The composites in PyTorch, each one a function of tensors.

Gate and up lie in memory one after the other, `[.., 2, I, H]`, and are seen through the logical `[.., I, 2, H]` as a
transposed view; so one matrix product makes both halves, each contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ernie_rt.graph import types
from ernie_rt_eager.attention import attention, rope_attention
from ernie_rt_eager.products import Product, product

DTYPES: Final[Mapping[str, torch.dtype]] = {name: getattr(torch, name) for name in types.DTYPES}


def cast(x: Tensor, *, dtype: str) -> Tensor:
    return x.to(DTYPES[dtype])


def take_rows(table: Tensor, ids: Tensor) -> Tensor:
    return table.index_select(0, ids.flatten()).unflatten(0, ids.shape)


def rms_norm(x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    # Six small kernels; F.rms_norm, which the CPU has no kernel for, is made of eleven.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = (length * length).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).mul_(weight).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def gelu(x: Tensor, *, form: str) -> Tensor:
    return (1.702 * x).sigmoid_().mul_(x) if form == "quick" else F.gelu(x)


def where(mask: Tensor, x: Tensor, *, otherwise: float) -> Tensor:
    return torch.where(mask, x, torch.full((), otherwise, dtype=x.dtype, device=x.device))


def in_range(x: Tensor, *, start: int, stop: int) -> Tensor:
    return (x >= start) & (x < stop)


def reshape(x: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    return x.reshape(dims)


def concat(first: Tensor, second: Tensor, *, axis: int) -> Tensor:
    return torch.cat((first, second), axis)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, product: Product = product) -> Tensor:
    if weight.ndim == 2:
        return product(x, weight, bias)  # [N, O]
    width = weight.shape[0]
    y = product(x, weight.transpose(0, 1).flatten(0, 1))  # [N, 2I]
    y = y.unflatten(1, (2, width)).transpose(1, 2)  # [N, I, 2]
    return y if bias is None else y + bias


def swiglu(x: Tensor) -> Tensor:
    return F.silu(x[..., 0]) * x[..., 1]


def rope_rows(table: Tensor, positions: Tensor, *, columns: tuple[int, ...]) -> Tensor:
    at = positions[:, list(columns)].long()  # [N, D/2]
    return table.gather(0, at)


def moe_route(
    x: Tensor,
    gate: Tensor,
    correction_bias: Tensor | None = None,
    *,
    top_k: int,
    norm_min: float,
    product: Product = product,
) -> tuple[Tensor, Tensor]:
    probabilities = product(x.float(), gate).softmax(-1)  # [N, E]
    scores = probabilities if correction_bias is None else probabilities + correction_bias
    ids = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]  # ties to the lowest id, unlike topk
    chosen = probabilities.gather(-1, ids)  # [N, A]
    return ids, (chosen / chosen.sum(-1, keepdim=True).clamp_min(norm_min)).to(x.dtype)


def moe_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    experts_gate_up: Tensor,
    experts_down: Tensor,
    *,
    top_k: int,
    product: Product = product,
    swiglu: Callable[[Tensor], Tensor] = swiglu,
) -> Tensor:
    pairs = ids.flatten()  # [N * A]
    none, *counts = torch.bincount(pairs + 1, minlength=len(experts_down) + 1).tolist()  # [1 + E]; ids of -1 first
    if none >= top_k:  # tokens of another pool, perhaps
        served = (ids >= 0).any(-1).nonzero().flatten()
        if len(served) < len(x):
            y = moe_experts(
                x[served], ids[served], weights[served], experts_gate_up, experts_down,
                top_k=top_k, product=product, swiglu=swiglu,
            )  # fmt: skip
            return torch.zeros_like(x).index_copy_(0, served, y)
    order = pairs.argsort(stable=True)[none:]  # the pairs of one expert side by side
    grouped = x[order // top_k]  # [n, H]
    out = torch.empty_like(grouped)
    start = 0
    for expert, count in enumerate(counts):
        if count:
            rows = slice(start, start + count)
            inner = swiglu(linear(grouped[rows], experts_gate_up[expert], product=product))  # [n, I]
            out[rows] = product(inner, experts_down[expert])
            start += count
    y = x.new_zeros(len(pairs), x.shape[1]).index_copy_(0, order, out).unflatten(0, (-1, top_k))  # [N, A, H]
    return (y * weights.unsqueeze(-1)).sum(1)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "cast": cast,
        "take_rows": take_rows,
        "add": torch.add,
        "where": where,
        "in_range": in_range,
        "reshape": reshape,
        "concat": concat,
        "rms_norm": rms_norm,
        "layer_norm": layer_norm,
        "gelu": gelu,
        "linear": linear,
        "swiglu": swiglu,
        "rope_rows": rope_rows,
        "attention": attention,
        "rope_attention": rope_attention,
        "moe_route": moe_route,
        "moe_experts": moe_experts,
    }
)
