"""What blocks mean, in float64 on the device, of weights in narrower dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt.graph.legalize import decompose
from ernie_rt_eager import ops
from ernie_rt_eager.attention import Context, LayerCache, attention

TIE = 1e-3
"""Experts whose scores are as near as this, as a share of the larger, may change places by rounding."""


def evaluate(node: Node, functions: Mapping[str, Callable[..., Any]], operands: Mapping[str, Any]) -> Any:
    """What a node gives: by the function of its op, or else of what it decomposes into. `operands` by `str`."""
    if node.op in functions:
        return functions[node.op](*(operands.get(str(operand)) for operand in node.inputs), **node.attributes)
    inner, results = decompose(node)
    known = dict(operands)
    for child in inner:
        given = evaluate(child, functions, known)
        outputs = given if len(child.outputs) > 1 else (given,)
        known |= zip(map(str, child.outputs), outputs, strict=True)
    (result,) = results
    return known[str(result)]


class Meaning:
    """Functions of the composites for activations in float64.

    Norms round their result to `dtype`, as every way of computing a block does: a router that reads other numbers
    chooses other experts. `ties [N]` are the rows in which it comes so near to that that rounding may decide.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.ties: Tensor | None = None
        self.functions: Mapping[str, Callable[..., Any]] = {
            **ops.FUNCTIONS,
            "take_rows": lambda table, ids: table.index_select(0, ids).double(),
            "cast": lambda x, dtype: x,
            "rms_norm": self._rms_norm,
            "linear": linear,
            "rope_attention": rope_attention,
            "moe_route": self._moe_route,
            "moe_experts": lambda x, ids, weights, gate_up, down, top_k: ops.moe_experts(
                x, ids, weights, cast(Tensor, Widened(gate_up)), cast(Tensor, Widened(down)), top_k=top_k
            ),
        }

    def _rms_norm(self, x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
        normed = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
        return normed.to(self._dtype).double()

    def _moe_route(
        self, x: Tensor, gate: Tensor, correction_bias: Tensor | None = None, *, top_k: int, norm_min: float
    ) -> tuple[Tensor, Tensor]:
        probabilities = (x @ gate.double().T).softmax(-1)
        scores = probabilities if correction_bias is None else probabilities + correction_bias.double()
        sorted_scores, ids = scores.sort(dim=-1, descending=True, stable=True)
        last, next_one = sorted_scores[:, top_k - 1], sorted_scores[:, min(top_k, len(gate) - 1)]
        self.ties = (last - next_one) < TIE * last.abs()
        ids = ids[:, :top_k]
        chosen = probabilities.gather(-1, ids)
        return ids, chosen / chosen.sum(-1, keepdim=True).clamp_min(norm_min)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return ops.linear(x, weight.double(), None if bias is None else bias.double())


class Widened:
    """Experts' weights, each of which is float64 while it is in use."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __len__(self) -> int:
        return len(self._weight)

    def __getitem__(self, expert: int) -> Tensor:
        return self._weight[expert].double()


def rope_attention(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    state: LayerCache,
    positions: Tensor,
    sequence: None,
    index: None,
    write: None,
    context: Context,
    context_sequence: None,
    context_index: None,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
) -> Tensor:
    """The composite of this name, rotated in float64."""
    heads = qkv.unflatten(1, (-1, head_dim))  # [N, Q + 2K, D]
    at = positions[:, 0]
    rotation = torch.complex(cos.index_select(0, at).double(), sin.index_select(0, at).double())[:, None]
    pairs = torch.view_as_complex(heads[:, : num_heads + num_kv_heads].unflatten(-1, (-1, 2)).contiguous())
    q, k = torch.view_as_real(pairs * rotation).flatten(-2).split([num_heads, num_kv_heads], dim=1)
    return attention(q, k, heads[:, num_heads + num_kv_heads :], state, None, context=context, scale=scale)
