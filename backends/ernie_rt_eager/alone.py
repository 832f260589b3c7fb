"""The composites so that what a token becomes depends, bit by bit, on that token and its context alone.

PyTorch chooses kernels by the shapes that it is given, and cuts loops where its threads meet; sums then come in another
order, and `exp` from other code, vectors or their remainder. So each call here has a shape that the token itself
decides. Norms, softmax and sums over a token's experts are as in `ops`: there every row is by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ernie_rt_eager import ops
from ernie_rt_eager.attention import LayerCache, Segment, Ways, attend, attend_whole, attention, rope_attention
from ernie_rt_eager.ops import FUNCTIONS, linear, moe_experts, moe_route
from ernie_rt_eager.products import product_in_tiles


def swiglu(x: Tensor) -> Tensor:
    return row_by_row(F.silu, x[..., 0].contiguous()) * x[..., 1]


def gelu(x: Tensor, *, form: str) -> Tensor:
    return row_by_row(partial(ops.gelu, form=form), x)


def row_by_row(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if x.device.type != "cpu":  # elsewhere one piece of code computes every number
        return function(x)
    return torch.cat([function(row) for row in x.split(1)])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Products and sums in calls of their own, each rounded as it must be: the code for complex vectors contracts them,
    the code for what remains of a vector does not."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.real, rotation.imag
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


def attend_each(q: Tensor, state: LayerCache, segment: Segment, scale: float) -> Tensor:
    """Each new token of a segment in a call of its own, in memory of its own, beside the context that it sees.

    In one call the threads of a CPU have scratch for several tokens, and how MKL sums depends on how that is aligned.
    """
    k, v, past = state.k[segment.rows], state.v[segment.rows], segment.past
    outs = [
        attend(token.clone(), k[: past + place + 1], v[: past + place + 1], past + place, scale)
        for place, token in enumerate(q.split(1))
    ]
    return torch.cat(outs)


def attend_apart(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """A whole sequence, in a call whose shape it decides by itself, in memory of its own, as above."""
    return attend_whole(q.clone(), k.clone(), v.clone(), visible, scale)


ALONE: Final = Ways(rotate, attend_each, attend_apart)

FUNCTIONS_ALONE: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        **FUNCTIONS,
        "linear": partial(linear, product=product_in_tiles),
        "swiglu": swiglu,
        "gelu": gelu,
        "attention": partial(attention, ways=ALONE),
        "rope_attention": partial(rope_attention, ways=ALONE),
        "moe_route": partial(moe_route, product=product_in_tiles),
        "moe_experts": partial(moe_experts, product=product_in_tiles, swiglu=swiglu),
    }
)
"""What `ops.FUNCTIONS` has, for `Target.deterministic`."""
