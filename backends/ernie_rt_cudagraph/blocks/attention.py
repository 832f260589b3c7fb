"""`attention_block`: three to five launches for a step of decodes, eager's composites for any other."""

from __future__ import annotations

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.inputs import Decodes
from ernie_rt_cudagraph.kernels.attention import MAX_HEAD_DIM, MAX_SHARE, decode_attention
from ernie_rt_cudagraph.kernels.linear import linear, qkv_linear
from ernie_rt_eager import ops
from ernie_rt_eager.attention import Context, LayerCache, rope_attention


def refusal(node: Node) -> str | None:
    """Why the kernels cannot run this node, or None."""
    heads, kv_heads, head_dim = (node.attributes[name] for name in ("num_heads", "num_kv_heads", "head_dim"))
    assert isinstance(heads, int) and isinstance(kv_heads, int) and isinstance(head_dim, int)
    if head_dim % 2 or head_dim > MAX_HEAD_DIM:
        return f"heads of {head_dim} numbers: its kernels want pairs, and at most {MAX_HEAD_DIM}"
    if heads % kv_heads or heads // kv_heads > MAX_SHARE:
        return f"{heads} query heads on {kv_heads} kv heads: its kernels want up to {MAX_SHARE} on each, all alike"
    return None


def attention_block(
    x: Tensor,
    norm: Tensor,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    out: Tensor,
    out_bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    state: LayerCache,
    positions: Tensor | None,
    sequence: None,
    index: None,
    write: None,
    context: Context | Decodes,
    context_sequence: None,
    context_index: None,
    *,
    eps: float,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    pdl: bool = False,
) -> Tensor:
    """The block of this name. For `context` the executable passes Decodes, or eager's Context, which say what the other
    index arrays would."""
    if isinstance(context, Decodes):
        q = qkv_linear(
            x, qkv, qkv_bias, cos, sin, positions, state, context, norm=norm, eps=eps, pdl=pdl,
        )  # fmt: skip
        y = decode_attention(q, state, context, scale=scale, pdl=pdl)
        return linear(y, out, out_bias, residual=x, pdl=pdl)
    y = ops.linear(ops.rms_norm(x, norm, eps=eps), qkv, qkv_bias)
    y = rope_attention(
        y, cos, sin, state, positions, None, None, None, context, None, None,
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, scale=scale,
    )  # fmt: skip
    return x + ops.linear(y, out, out_bias)
