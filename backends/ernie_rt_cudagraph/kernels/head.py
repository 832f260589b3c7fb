"""The logits of few rows, each row of the weight read once, and the largest of those that a program makes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.kernels.language import products, release, wait, weight_tile
from ernie_rt_cudagraph.kernels.linear import SIDE_BY_SIDE, Tiles, rms_norm
from ernie_rt_cudagraph.kernels.order import NOTHING, ranked
from ernie_rt_cudagraph.launch import launch


def tiles(n: int, width: int, itemsize: int) -> Tiles:
    """For n rows of activations of `width` numbers, of so many bytes each.

    A vocabulary is long: programs take more of the weight's rows than those of other products, so that there are fewer
    results of theirs to choose the largest from, and tiles of many rows are not read over and over. Tiles that come
    asynchronously take up to 96 KiB, which every GPU since Ampere has for a program.
    """
    whole = max(16, triton.next_power_of_2(width))
    if n <= SIDE_BY_SIDE:
        return Tiles(1, 16, min(128, whole), num_warps=4, num_stages=1)
    m = min(128, max(16, triton.next_power_of_2(n)))
    block = (256 if m <= 32 else 128) // itemsize
    return Tiles(m, 64, min(block, whole), num_warps=8, num_stages=4)


@triton.jit
def head_kernel(
    x, rows, norm, weight, bias, knowns, logits, largest, eps, N,
    V: tl.constexpr, K: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """logits = norm(x[rows]) @ weightᵀ + bias, in float32, and the largest of each program's, of ids that are known,
    ranked with its id: `largest [N, PARTS]`. rows, norm (which wants M = 1), bias, and knowns and largest may be None.
    """
    n = tl.program_id(0) * M + tl.arange(0, M)
    ids = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    held, wanted = n < N, ids < V
    rows_of_weight = weight + ids.to(tl.int64) * K
    first = weight_tile(rows_of_weight, wanted, 0, K, BLOCK_K)
    wait(PDL)
    release(PDL)
    row = n
    if rows is not None:
        row = tl.load(rows + n, mask=held, other=0)
    y = products(
        x + row.to(tl.int64) * K, held, norm, None, rows_of_weight, wanted,
        M, ROWS, K, BLOCK_K, norm is not None, eps, first,
    )  # fmt: skip
    if bias is not None:
        y += tl.load(bias + ids, mask=wanted, other=0).to(tl.float32)
    tl.store(logits + n.to(tl.int64)[:, None] * V + ids, y, mask=held[:, None] & wanted)
    if largest is not None:
        known = tl.load(knowns + n, mask=held, other=0)
        ranks = tl.where(wanted & (ids < known[:, None]), ranked(y, ids), NOTHING)  # [M, ROWS]
        tl.store(largest + n * PARTS + tl.program_id(1), tl.max(ranks, axis=1), mask=held)


def head(
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    *,
    eps: float,
    known: Tensor | None = None,
    out: Tensor | None = None,
    pdl: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Logits `[L, V]` of the rows `[L]` of `x [N, K]`, in float32; they are the first rows of `out`, if that is given.

    Where `known [L]` says how many ids may be chosen, they come with the largest of each part of them, ranked with its
    id, as `sampling.draw` takes them: `[L, parts]`, int64.
    """
    n, (vocabulary, width) = len(rows), weight.shape
    sizes = tiles(n, width, x.element_size())
    parts = triton.cdiv(vocabulary, sizes.ROWS)
    logits = torch.empty(n, vocabulary, dtype=torch.float32, device=x.device) if out is None else out[:n]
    largest = None if known is None else torch.empty(n, parts, dtype=torch.int64, device=x.device)
    fused = sizes.M == 1  # programs of one row pick and norm it as they read it
    launch(
        head_kernel, (triton.cdiv(n, sizes.M), parts),
        x=x if fused else rms_norm(x.index_select(0, rows), norm, eps=eps, pdl=pdl),
        rows=rows if fused else None, norm=norm if fused else None,
        weight=weight, bias=bias, knowns=known, logits=logits, largest=largest, eps=eps, N=n,
        V=vocabulary, K=width, PARTS=parts, PDL=pdl, **sizes._asdict(),
    )  # fmt: skip
    return logits, largest
