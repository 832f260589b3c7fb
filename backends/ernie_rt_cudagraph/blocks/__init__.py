"""The blocks as functions of tensors: what an Interpreter calls, by op name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.blocks import attention, embed, head, mlp, moe
from ernie_rt_cudagraph.kernels.rope import rope_rows

REFUSALS: Final[Mapping[str, Callable[[Node], str | None]]] = {
    "embed": embed.refusal,
    "attention_block": attention.refusal,
    "mlp_block": mlp.refusal,
    "moe_block": moe.refusal,
    "head": head.refusal,
}
"""Why a block cannot be run in one go, in words; None: it can."""


def functions(live: Tensor, output: head.HeadOutput, *, pdl: bool) -> Mapping[str, Callable[..., Any]]:
    """The functions by op, for work of which the first `live [1]` rows are no padding.

    `output` is the head's. With `pdl` a kernel may begin before the one in front of it has ended.
    """
    return {
        "embed": embed.embed,
        "attention_block": partial(attention.attention_block, pdl=pdl),
        "mlp_block": partial(mlp.mlp_block, pdl=pdl),
        "moe_block": partial(moe.moe_block, live=live, pdl=pdl),
        "moe_experts": moe.moe_experts,
        "rope_rows": partial(rope_rows, pdl=pdl),
        "head": partial(head.head, output=output, pdl=pdl),
    }
