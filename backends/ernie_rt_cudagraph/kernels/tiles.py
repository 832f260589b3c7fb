"""The experts of many tokens: the pairs of a token and an expert, grouped by expert, in tiles of the tensor cores.

An expert's pairs fill as many tiles as they need, its last one in part, so that there are never more than pairs / M
tiles and one for each expert. Grids have room for that many, whatever was chosen, and what is left over ends at once:
nobody has to know on the host. Neighbours in a grid have the same pairs, and all tiles of an expert come one after the
other, so that both stay in the L2 cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.kernels.language import gated, paired_rows, products, release, rounded, wait
from ernie_rt_cudagraph.kernels.routing import group
from ernie_rt_cudagraph.launch import launch

COMBINED = 1024
"""How many numbers of a token one program combines."""


class Sizes(NamedTuple):
    """M pairs and ROWS rows of a weight in a tile, BLOCK_K numbers of each at a time."""

    M: int
    ROWS: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


def tile_sizes(pairs: float, width: int, itemsize: int) -> Sizes:
    """For so many pairs of an expert, on average, and rows of `width` numbers.

    While weights are what takes time, a tile holds few pairs and reads long pieces of 64 rows; when products are, it is
    as large as 96 KiB of shared memory allow, which all cards from Ampere on have.
    """
    long = min(max(triton.next_power_of_2(width), 16), 256 // itemsize)
    for most in (16, 32, 64):
        if pairs <= most:
            return Sizes(M=most, ROWS=64, BLOCK_K=long, num_warps=4, num_stages=3)
    return Sizes(M=128, ROWS=128, BLOCK_K=min(long, 128 // itemsize), num_warps=8, num_stages=3)


@triton.jit
def _pairs_of(starts, tile, E: tl.constexpr, EXPERTS: tl.constexpr, M: tl.constexpr):
    """The expert of a tile, at least E for a tile that is not needed, and the places `[M]` of its pairs in the order of
    groups, with a mask of those that there are."""
    experts = tl.arange(0, EXPERTS)
    begin = tl.load(starts + experts, mask=experts < E, other=0)
    end = tl.load(starts + experts + 1, mask=experts < E, other=0)
    tiles = tl.cdiv(end - begin, M)
    done = tl.cumsum(tiles, axis=0)
    expert = tl.sum((done <= tile).to(tl.int32), axis=0)
    mine = experts == expert
    first = tl.sum(tl.where(mine, begin + (tile - done + tiles) * M, 0), axis=0)
    place = first + tl.arange(0, M)
    return expert, place, place < tl.sum(tl.where(mine, end, 0), axis=0)


@triton.jit
def _gate_up_tiles(
    x, order, starts, gate_up, inner, stride_expert, stride_row, stride_half,
    A: tl.constexpr, E: tl.constexpr, EXPERTS: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    release(PDL)
    expert, place, held = _pairs_of(starts, tl.program_id(1), E, EXPERTS, M)
    if expert >= E:
        return
    token = tl.load(order + place, mask=held, other=0).to(tl.int64) // A
    first = tl.program_id(0) * (ROWS // 2)
    rows, wanted = paired_rows(
        gate_up + expert.to(tl.int64) * stride_expert, first, stride_row, stride_half, WIDTH, ROWS // 2
    )
    sums = products(x + token * H, held, None, None, rows, wanted, M, ROWS, H, BLOCK_K, False)
    column = first + tl.arange(0, ROWS // 2)
    at = inner + place.to(tl.int64)[:, None] * WIDTH + column
    tl.store(at, rounded(gated(sums, M, ROWS // 2), inner.dtype.element_ty), mask=held[:, None] & (column < WIDTH))


@triton.jit
def _down_tiles(
    inner, order, starts, down, out,
    E: tl.constexpr, EXPERTS: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    release(PDL)
    expert, place, held = _pairs_of(starts, tl.program_id(1), E, EXPERTS, M)
    if expert >= E:
        return
    pair = tl.load(order + place, mask=held, other=0).to(tl.int64)
    column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    wanted = column < H
    rows = down + (expert.to(tl.int64) * H + column) * WIDTH
    inputs = inner + place.to(tl.int64) * WIDTH
    sums = products(inputs, held, None, None, rows, wanted, M, ROWS, WIDTH, BLOCK_K, False)
    tl.store(out + pair[:, None] * H + column, rounded(sums, out.dtype.element_ty), mask=held[:, None] & wanted)


@triton.jit
def _combine(
    each, ids, weights, beside, out,
    A: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    release(PDL)
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < H
    total = tl.zeros((BLOCK,), tl.float32)
    for a in range(A):
        pair = token * A + a
        counts = tl.load(ids + pair) >= 0
        y = tl.load(each + pair * H + column, mask=there & counts, other=0).to(tl.float32)
        total += tl.where(counts, tl.load(weights + pair).to(tl.float32), 0.0) * y
    at = token * H + column
    if beside is not None:
        total += tl.load(beside + at, mask=there, other=0).to(tl.float32)
    tl.store(out + at, rounded(total, out.dtype.element_ty), mask=there)


def many_rows(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    beside: Tensor | None = None,
) -> Tensor:
    """The sum over a of weights[n, a] · expert ids[n, a] of `x [N, H]`, an id of -1 being none, and of what is given
    `beside [N, H]`."""
    count, top_k = ids.shape
    experts, width, _, hidden = gate_up.shape
    pairs = count * top_k
    order, starts = group(ids, experts)
    inner, each = x.new_empty(pairs, width), x.new_empty(pairs, hidden)
    stride_expert, stride_row, stride_half, _ = gate_up.stride()
    common = {"order": order, "starts": starts, "E": experts, "EXPERTS": triton.next_power_of_2(experts)}
    sizes = tile_sizes(pairs / experts, hidden, x.element_size())
    launch(
        _gate_up_tiles, (triton.cdiv(width, sizes.ROWS // 2), tiles(pairs, experts, sizes.M)),
        x=x, gate_up=gate_up, inner=inner,
        stride_expert=stride_expert, stride_row=stride_row, stride_half=stride_half,
        A=top_k, H=hidden, WIDTH=width, PDL=False, **common, **sizes._asdict(),
    )  # fmt: skip
    sizes = tile_sizes(pairs / experts, width, x.element_size())
    launch(
        _down_tiles, (triton.cdiv(hidden, sizes.ROWS), tiles(pairs, experts, sizes.M)),
        inner=inner, down=down, out=each, H=hidden, WIDTH=width, PDL=False, **common, **sizes._asdict(),
    )  # fmt: skip
    out, block = torch.empty_like(x), min(triton.next_power_of_2(hidden), COMBINED)
    launch(
        _combine, (count, triton.cdiv(hidden, block)), num_warps=4, num_stages=1,
        each=each, ids=ids, weights=weights, beside=beside, out=out,
        A=top_k, H=hidden, BLOCK=block, PDL=False,
    )  # fmt: skip
    return out


def tiles(pairs: int, experts: int, size: int) -> int:
    """The most tiles that so many pairs can need: the whole ones, and one in part for each expert that has any."""
    return pairs // size + min(experts, pairs)
