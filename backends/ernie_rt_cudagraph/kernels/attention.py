"""Attention of new tokens, one for each sequence, over the pages of a cache."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.inputs import Decodes
from ernie_rt_cudagraph.kernels.language import dot, release, rounded, wait
from ernie_rt_cudagraph.launch import launch
from ernie_rt_eager.attention import LayerCache

MAX_HEAD_DIM: Final = 256
MAX_SHARE: Final = 64
"""How many query heads may read one kv head: sums of more do not fit into registers."""
PROGRAMS: Final = 132
"""How many programs a step is to have: as many as an H100 has processors, one of which a program can keep busy."""
MAX_SPLITS: Final = 32
LOWEST: Final = tl.constexpr(-3e38)
"""Lower than all scores, and yet a number: differences to it are numbers too."""


class Split(NamedTuple):
    """How attention is cut: SPLITS programs share a sequence, and read BLOCK of its tokens at a time.

    Their number follows from that of the rows alone, since a captured graph has it for all lengths. Tiles of K and V
    are 16 KiB each at 16 bits and 128 numbers a head. A program that has a processor to itself has three on their way;
    where several share one, each has one, so that more of them have room.
    """

    SPLITS: int
    BLOCK: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, n: int, kv_heads: int, width: int) -> Split:
        """For n sequences and rows of `width` bytes a head, padded."""
        wanted = max(1, PROGRAMS // (n * kv_heads))
        splits = min(MAX_SPLITS, 1 << wanted.bit_length() - 1)
        stages = 5 if n * kv_heads * splits <= PROGRAMS else 3
        return cls(splits, max(16, min(64, (1 << 14) // width)), num_warps=4, num_stages=stages)


@triton.jit
def attention_kernel(
    q, k_cache, v_cache, index, seat, tables, out, parts, logs, scale, pages_of_seat,
    Q: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PAGE_SIZE: tl.constexpr, SHARE: tl.constexpr,
    WIDTH: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """softmax(q kᵀ · scale) v of the query heads that read one kv head, over a share of one sequence.

    A single share's outputs go to `out [N, Q, D]`; of several each goes to `parts [N, Q, SPLITS, D]` in float32, and
    the logarithm, of base 2, of the sum of its weights to `logs [N, Q, SPLITS]`, -inf where it has no token.
    SHARE query heads and WIDTH numbers of each are Q / KV and D, padded for tensor cores.
    """
    kv_head, split, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    share = tl.arange(0, SHARE)
    d = tl.arange(0, WIDTH)
    c = tl.arange(0, BLOCK)
    wait(PDL)
    release(PDL)
    length = tl.load(index + n) + 1
    each = tl.cdiv(tl.cdiv(length, BLOCK), SPLITS) * BLOCK
    stop = tl.minimum(length, (split + 1) * each)
    pages = tables + tl.load(seat + n) * pages_of_seat
    head = n * Q + kv_head * (Q // KV) + share  # [SHARE]
    whose = share < Q // KV
    query = tl.load(q + head[:, None] * D + d, mask=whose[:, None] & (d < D), other=0)  # [SHARE, WIDTH]

    top = tl.full((SHARE,), LOWEST, tl.float32)
    total = tl.zeros((SHARE,), tl.float32)
    sums = tl.zeros((SHARE, WIDTH), tl.float32)
    for start in range(split * each, stop, BLOCK):
        place = start + c
        there = place < stop
        page = tl.load(pages + place // PAGE_SIZE, mask=there, other=0)
        row = (page.to(tl.int64) * PAGE_SIZE + place % PAGE_SIZE) * (KV * D) + kv_head * D  # [BLOCK]
        inside = there[:, None] & (d < D)
        k = tl.load(k_cache + row[:, None] + d, mask=inside, other=0)  # [BLOCK, WIDTH]
        v = tl.load(v_cache + row[:, None] + d, mask=inside, other=0)
        scores = dot(query, tl.trans(k), tl.zeros((SHARE, BLOCK), tl.float32)) * scale
        scores = tl.where(there, scores, float("-inf"))
        above = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - above[:, None])
        fade = tl.exp2(top - above)
        total = total * fade + tl.sum(weights, axis=1)
        sums = dot(rounded(weights, v.dtype), v, sums * fade[:, None])
        top = above

    none = total == 0
    total = tl.where(none, 1, total)
    sums /= total[:, None]
    written = whose[:, None] & (d < D)
    if SPLITS == 1:
        tl.store(out + head[:, None] * D + d, rounded(sums, out.dtype.element_ty), mask=written)
    else:
        part = head * SPLITS + split
        tl.store(parts + part[:, None] * D + d, sums, mask=written)
        tl.store(logs + part, tl.where(none, float("-inf"), top + tl.log2(total)), mask=whose)


@triton.jit
def merge_kernel(
    parts, logs, out, D: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    """out `[N, Q, D]`: the mean of the parts of each head, weighed by what the sums of their weights are."""
    head = tl.program_id(0)
    split = tl.arange(0, SPLITS)
    d = tl.arange(0, WIDTH)
    wait(PDL)
    release(PDL)
    log = tl.load(logs + head * SPLITS + split)
    there = log > float("-inf")
    weight = tl.exp2(log - tl.maximum(tl.max(log, axis=0), LOWEST))
    place = (head * SPLITS + split)[:, None] * D + d
    part = tl.load(parts + place, mask=there[:, None] & (d < D), other=0)  # [SPLITS, WIDTH]
    total = tl.sum(weight, axis=0)
    mean = tl.sum(part * weight[:, None], axis=0) / tl.where(total == 0, 1, total)
    tl.store(out + head * D + d, rounded(mean, out.dtype.element_ty), mask=d < D)


def decode_attention(q: Tensor, cache: LayerCache, decodes: Decodes, *, scale: float, pdl: bool = False) -> Tensor:
    """Attention of `q [N, Q, D]`, one token of each sequence, over what the cache has of it, itself included.

    Gives `[N, Q·D]`; rows of padding are 0.
    """
    (n, heads, head_dim), kv_heads = q.shape, cache.k.shape[1]
    width = max(16, triton.next_power_of_2(head_dim))
    split = Split.of(n, kv_heads, width * q.element_size())
    splits, out = split.SPLITS, q.new_empty(n, heads * head_dim)
    parts = q.new_empty(n, heads, splits, head_dim, dtype=torch.float32) if splits > 1 else None
    logs = q.new_empty(n, heads, splits, dtype=torch.float32) if splits > 1 else None
    launch(
        attention_kernel, (kv_heads, splits, n),
        q=q, k_cache=cache.k, v_cache=cache.v, index=decodes.index, seat=decodes.seat, tables=decodes.tables,
        out=out, parts=parts, logs=logs, scale=scale * math.log2(math.e), pages_of_seat=decodes.tables.stride(0),
        Q=heads, KV=kv_heads, D=head_dim, PAGE_SIZE=decodes.page_size,
        SHARE=max(16, triton.next_power_of_2(heads // kv_heads)), WIDTH=width, PDL=pdl,
        **split._asdict(),
    )  # fmt: skip
    if splits > 1:
        launch(
            merge_kernel, (n * heads,), num_warps=4,
            parts=parts, logs=logs, out=out, D=head_dim, WIDTH=width, SPLITS=splits, PDL=pdl,
        )  # fmt: skip
    return out
