"""The composites so that what a token becomes depends, bit by bit, on that token and its context alone.

PyTorch chooses kernels by the shapes that it is given, and cuts loops where its threads meet; sums then come in another
order, and `exp` from other code, vectors or their remainder. So each call here has a shape that the token itself
decides. Norms, rotations, softmax and sums over a token's experts are as in `ops`: there every row is by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ernie_rt_eager.attention import LayerCache, Segment, attend, attention, rope_attention
from ernie_rt_eager.ops import FUNCTIONS, linear, moe_experts, moe_route
from ernie_rt_eager.products import product_in_tiles


def swiglu(x: Tensor) -> Tensor:
    gate = x[..., 0].contiguous()
    if x.device.type != "cpu":  # elsewhere one piece of code computes every number
        return F.silu(gate) * x[..., 1]
    return torch.cat([F.silu(row) for row in gate.split(1)]) * x[..., 1]


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


FUNCTIONS_ALONE: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        **FUNCTIONS,
        "linear": partial(linear, product=product_in_tiles),
        "swiglu": swiglu,
        "attention": partial(attention, attend_segment=attend_each),
        "rope_attention": partial(rope_attention, attend_segment=attend_each),
        "moe_route": partial(moe_route, product=product_in_tiles),
        "moe_experts": partial(moe_experts, product=product_in_tiles, swiglu=swiglu),
    }
)
"""What `ops.FUNCTIONS` has, for `Target.deterministic`."""
