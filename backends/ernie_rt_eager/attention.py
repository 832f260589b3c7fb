"""Attention over the cache, sequence by sequence, by PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernie_rt.contract import Step
from ernie_rt_eager.products import cpu_multiplies

MANY: Final = 128
"""Tokens from which on products for each head pay."""
SCORED_ROWS: Final = 512
"""For so many tokens at most, scores are in memory at once: of a picture of full HD, 11 MB."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's K and V rows, `[R, K, D]` each."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence in a step: its new tokens `start:stop`, how many came before, and where its context rows lie."""

    start: int
    stop: int
    past: int
    rows: slice | Tensor


class Context:
    """What attention needs to know of a step, worked out once for all layers."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step = step
        self._device = device
        self.write = torch.from_numpy(step.write.astype(np.int64)).to(device)  # [N]
        self._rotation: Tensor | None = None

    @cached_property
    def segments(self) -> list[Segment]:
        step = self._step
        starts, pasts, lengths = step.query_start.tolist(), step.past.tolist(), step.lengths.tolist()
        return [
            Segment(starts[b], starts[b + 1], pasts[b], self._rows(step.tables[b], lengths[b], step.page_size))
            for b in range(len(pasts))
        ]

    def rotation(self, cos: Tensor, sin: Tensor, positions: Tensor | None) -> Tensor:
        """`rotation_of`, once: every layer reads the same tables."""
        if self._rotation is None:
            self._rotation = rotation_of(cos, sin, positions)
        return self._rotation

    def _rows(self, table: np.ndarray, length: int, page_size: int) -> slice | Tensor:
        """A slice where the pages follow one another, so that nothing is gathered; else the row numbers."""
        pages = table[: -(-length // page_size)]
        first = int(pages[0]) * page_size
        if np.all(np.diff(pages) == 1):
            return slice(first, first + length)
        index = np.arange(length)
        rows = pages[index // page_size].astype(np.int64) * page_size + index % page_size
        return torch.from_numpy(rows).to(self._device)


def rotation_of(cos: Tensor, sin: Tensor, positions: Tensor | None) -> Tensor:
    """cos + i·sin of each new token `[N, 1, D/2]`."""
    if positions is not None:
        cos, sin = (table.index_select(0, positions[:, 0]) for table in (cos, sin))
    return torch.complex(cos, sin).unsqueeze(1)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate adjacent pairs as complex numbers, in float32. `x [N, heads, D]`, `rotation [N, 1, D/2]`."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, past: int | Tensor | None, scale: float) -> Tensor:
    """One sequence: q `[n, Q, D]`, k and v `[past + n, K, D]`; gives `[n, Q·D]`. In place of `past` a mask may say
    which rows each token sees `[n, C]`; None: all.

    A single token's query heads of one kv head become query rows (12 times faster on the CPU than `enable_gqa`). For
    several tokens the query heads of a kv head are the batch, over which k and v are expanded without a copy. (Expanded
    over the heads, CUDA's memory-efficient kernel takes wrong rows of a mask where the last block of queries has one
    row: https://github.com/pytorch/pytorch/issues/191937, mended in August 2026.)
    """
    new, groups = q.shape[0], k.shape[1]
    query = q.unflatten(1, (groups, -1))  # [n, K, Q/K, D]
    keys, values = k.transpose(0, 1), v.transpose(0, 1)  # [K, C, D]
    if new == 1 and isinstance(past, int):
        return F.scaled_dot_product_attention(query, keys[None], values[None], scale=scale).reshape(1, -1)
    query = query.permute(2, 1, 0, 3)  # [Q/K, K, n, D]
    shared = (len(query), *keys.shape)
    arguments: dict[str, Any] = {"is_causal": True}
    if not isinstance(past, int):
        arguments = {"attn_mask": past}
    elif past:
        arguments = {"attn_mask": _mask(new, past, q.device)}
    out = F.scaled_dot_product_attention(query, keys.expand(shared), values.expand(shared), scale=scale, **arguments)
    return out.permute(2, 1, 0, 3).reshape(new, -1)


def attend_whole(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """`attend` of tokens that have no other context than one another.

    On a CPU, PyTorch's kernel for 16-bit numbers is no faster than that for float32. Where the CPU multiplies them, two
    products for each head, some rows at a time, go half as fast again (4,096 patches, two cores with AVX512-BF16);
    scores are rounded to 16 bits then, as they are where attention is written out.
    """
    new, heads, _ = q.shape
    if visible is not None or new < MANY or q.itemsize != 2 or q.device.type != "cpu":
        return attend(q, k, v, visible, scale)
    if not cpu_multiplies(q.dtype):
        return attend(q.float(), k.float(), v.float(), None, scale).to(q.dtype)
    out, zero, share = q.new_empty(q.shape), q.new_zeros(()), heads // k.shape[1]
    step = -(-new // -(-new // SCORED_ROWS))  # in equal parts
    for head in range(heads):
        query, key, value = q[:, head], k[:, head // share], v[:, head // share]
        for start in range(0, new, step):
            rows = slice(start, start + step)
            scores = torch.addmm(zero, query[rows], key.t(), beta=0, alpha=scale)  # [rows, n]
            out[rows, head] = scores.softmax(-1) @ value
    return out.flatten(1)


def _mask(new: int, past: int, device: torch.device) -> Tensor:
    """Which of `past + new` rows each new token sees: the last one all of them."""
    return torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)


def attend_together(q: Tensor, state: LayerCache, segment: Segment, scale: float) -> Tensor:
    """All new tokens of a segment at once."""
    return attend(q, state.k[segment.rows], state.v[segment.rows], segment.past, scale)


@dataclass(frozen=True, slots=True)
class Ways:
    """How the parts of attention are computed: together, unless rows must not depend on one another."""

    rotate: Callable[[Tensor, Tensor], Tensor] = rotate
    segment: Callable[[Tensor, LayerCache, Segment, float], Tensor] = attend_together
    """Attention of a segment's new tokens `[n, Q, D]` over its rows of the cache, with a scale: `[n, Q·D]`."""
    whole: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor] = attend_whole
    """Attention of tokens `[n, Q, D]` that have no other context than one another, with a mask `[n, n]` or all."""


TOGETHER: Final = Ways()


def rope_attention(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    state: LayerCache | None,
    positions: Tensor | None,
    sequence: Tensor | None,
    index: Tensor | None,
    write: None,
    context: Context | None,
    context_sequence: None,
    context_index: None,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    ways: Ways = TOGETHER,
) -> Tensor:
    """The composite of this name. With a state the executable passes a Context for `context`, which says what the other
    index arrays would; without, the tensors."""
    heads = qkv.unflatten(1, (-1, head_dim))  # [N, Q + 2K, D]
    rotation = rotation_of(cos, sin, positions) if context is None else context.rotation(cos, sin, positions)
    rotated = ways.rotate(heads[:, : num_heads + num_kv_heads], rotation)
    q, k = rotated.split([num_heads, num_kv_heads], dim=1)
    v = heads[:, num_heads + num_kv_heads :]
    return attention(q, k, v, state, sequence, index, context=context, scale=scale, ways=ways)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LayerCache | None,
    sequence: Tensor | None,
    index: Tensor | None = None,
    write: None = None,
    context: Context | None = None,
    context_sequence: None = None,
    context_index: None = None,
    *,
    scale: float,
    ways: Ways = TOGETHER,
) -> Tensor:
    """The composite of this name, from what `rope_attention` is passed."""
    if state is None:
        assert sequence is not None
        counts = torch.unique_consecutive(sequence, return_counts=True)[1].tolist()
        parts = [x.split(counts) for x in (q, k, v)]
        seen = [None] * len(counts) if index is None else [i <= i[:, None] for i in index.split(counts)]
        outs = [ways.whole(q, k, v, visible, scale) for q, k, v, visible in zip(*parts, seen, strict=True)]
        return torch.cat(outs)
    assert context is not None
    state.k.index_copy_(0, context.write, k)
    state.v.index_copy_(0, context.write, v)
    outs = [ways.segment(q[segment.start : segment.stop], state, segment, scale) for segment in context.segments]
    return outs[0] if len(outs) == 1 else torch.cat(outs)  # [N, Q·D]
