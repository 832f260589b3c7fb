"""The experts of a few tokens: each program owns rows of the output, so nothing is sorted, scattered or added twice."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.kernels.language import gated, paired_rows, products, release, rounded, wait, weight_tile
from ernie_rt_cudagraph.kernels.routing import chosen, served
from ernie_rt_cudagraph.launch import launch


class Sizes(NamedTuple):
    """How many rows of a weight a program reads, BLOCK_K numbers of each at a time."""

    ROWS: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


def gate_up_sizes(width: int) -> Sizes:
    """A tile of 8 KiB of 16-bit weights, so that several programs fit on a multiprocessor: together they keep memory
    busy while single ones choose their expert or sum up. It is of many rows, for few programs to choose."""
    block = min(triton.next_power_of_2(width), 256)
    return Sizes(ROWS=4096 // block, BLOCK_K=block, num_warps=8, num_stages=1)


def down_sizes(width: int) -> Sizes:
    """Half of that: there are fewer programs, of which each reads from all experts, and none may come too late."""
    block = min(triton.next_power_of_2(width), 512)
    return Sizes(ROWS=2048 // block, BLOCK_K=block, num_warps=8, num_stages=1)


@triton.jit
def _gate_up(
    normed, logits, correction_bias, live, mask, gate_up, ids, weights, inner,
    norm_min, stride_expert, stride_row, stride_half,
    A: tl.constexpr, E: tl.constexpr, EXPERTS: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    release(PDL)
    pair, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = pair // A
    if not served(token, live, mask):
        return
    place, weight = chosen(logits + token * E, correction_bias, norm_min, A, E, EXPERTS)
    mine = place == pair % A
    expert = tl.sum(tl.where(mine, tl.arange(0, EXPERTS), 0), axis=0)
    if tile == 0:
        tl.store(ids + pair, expert)
        tl.store(weights + pair, rounded(tl.sum(tl.where(mine, weight, 0.0), axis=0), weights.dtype.element_ty))
    one = tl.arange(0, 1)
    first = tile * (ROWS // 2)
    rows, wanted = paired_rows(
        gate_up + expert.to(tl.int64) * stride_expert, first, stride_row, stride_half, WIDTH, ROWS // 2
    )
    sums = products(normed + token * H + one, one == 0, None, None, rows, wanted, 1, ROWS, H, BLOCK_K, False)
    at = first + tl.arange(0, ROWS // 2)
    y = rounded(gated(sums, 1, ROWS // 2), inner.dtype.element_ty)
    tl.store(inner + pair * WIDTH + at[None, :], y, mask=at[None, :] < WIDTH)


@triton.jit
def _down_tile(
    ids, down, row, step, count,
    H: tl.constexpr, WIDTH: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The tile of a step of `_down`, 0 after the last one; `ids` points at the token's."""
    steps: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K  # a number in Triton 3.6 too, which tl.cdiv is not
    expert = tl.load(ids + step // steps, mask=step < count, other=0).to(tl.int64)
    rows = down + (expert * H + row) * WIDTH
    return weight_tile(rows, (row < H) & (step < count), step % steps * BLOCK_K, WIDTH, BLOCK_K)


@triton.jit
def _down(
    residual, live, mask, ids, weights, inner, down, shared_inner, shared_down, shared_down_bias, out,
    A: tl.constexpr, H: tl.constexpr, WIDTH: tl.constexpr, S: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A token's experts in one loop over all their tiles, of which the next one is always asked for, and one sum at the
    end; the shared experts' part is begun before. Of a token that the mask leaves out there are no tiles."""
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    wanted = row < H
    if shared_down is not None:
        shared_rows = shared_down + row.to(tl.int64) * S
        ahead = weight_tile(shared_rows, wanted, 0, S, BLOCK_K)
    wait(PDL)
    release(PDL)
    token = tl.program_id(0).to(tl.int64)
    if token >= tl.load(live):
        return
    steps: tl.constexpr = (WIDTH + BLOCK_K - 1) // BLOCK_K  # a number in Triton 3.6 too, which tl.cdiv is not
    every = tl.zeros((ROWS, 1), tl.int32)
    each = tl.zeros((ROWS, BLOCK_K), tl.float32)
    count = A * steps
    if mask is not None:
        count = tl.where(tl.load(mask + token), count, 0)
    tile = _down_tile(ids + token * A, down, row, 0, count, H, WIDTH, BLOCK_K)
    for step in range(count):
        following = _down_tile(ids + token * A, down, row, step + 1, count, H, WIDTH, BLOCK_K)
        pair = token * A + step // steps
        at = every + step % steps * BLOCK_K + tl.arange(0, BLOCK_K)  # [ROWS, BLOCK_K]
        y = tl.load(inner + pair * WIDTH + at, mask=at < WIDTH, other=0).to(tl.float32)
        each += tile.to(tl.float32) * (y * tl.load(weights + pair).to(tl.float32))
        tile = following
    total = tl.sum(each, axis=1)[None, :]  # [1, ROWS]
    if shared_down is not None:
        one = tl.arange(0, 1)
        inputs = shared_inner + token * S + one
        total += products(inputs, one == 0, None, None, shared_rows, wanted, 1, ROWS, S, BLOCK_K, False, 0.0, ahead)
        if shared_down_bias is not None:
            total += tl.load(shared_down_bias + row, mask=wanted, other=0).to(tl.float32)[None, :]
    at = token * H + row[None, :]
    total += tl.load(residual + at, mask=wanted[None, :], other=0).to(tl.float32)
    tl.store(out + at, rounded(total, out.dtype.element_ty), mask=wanted[None, :])


def few_rows(
    residual: Tensor,
    normed: Tensor,
    logits: Tensor,
    correction_bias: Tensor | None,
    gate_up: Tensor,
    down: Tensor,
    shared_inner: Tensor | None,
    shared_down: Tensor | None,
    shared_down_bias: Tensor | None,
    *,
    top_k: int,
    norm_min: float,
    mask: Tensor | None,
    live: Tensor,
    pdl: bool,
) -> Tensor:
    """residual + the chosen experts of `normed [N, H]`, where the mask `[N]` is true, + down of the shared experts'
    `shared_inner [N, S]`.

    Whoever computes an expert's gate and up chooses it once more, from the router's `logits [N, E]`: that costs less
    than another kernel. An expert's weights are read once for each token that chose it.
    """
    count, hidden = normed.shape
    experts, width = gate_up.shape[:2]
    inner = normed.new_empty(count, top_k, width)
    weights, ids = normed.new_empty(count, top_k), live.new_empty(count, top_k)
    stride_expert, stride_row, stride_half, _ = gate_up.stride()
    sizes = gate_up_sizes(hidden)
    launch(
        _gate_up, (count * top_k, triton.cdiv(width, sizes.ROWS // 2)),
        normed=normed, logits=logits, correction_bias=correction_bias, live=live, mask=mask, gate_up=gate_up,
        ids=ids, weights=weights, inner=inner, norm_min=norm_min,
        stride_expert=stride_expert, stride_row=stride_row, stride_half=stride_half,
        A=top_k, E=experts, EXPERTS=triton.next_power_of_2(experts), H=hidden, WIDTH=width, PDL=pdl, **sizes._asdict(),
    )  # fmt: skip
    out, sizes = torch.empty_like(normed), down_sizes(width)
    shared_width = 0 if shared_down is None else shared_down.shape[1]
    launch(
        _down, (count, triton.cdiv(hidden, sizes.ROWS)),
        residual=residual, live=live, mask=mask, ids=ids, weights=weights, inner=inner, down=down,
        shared_inner=shared_inner, shared_down=shared_down, shared_down_bias=shared_down_bias, out=out,
        A=top_k, H=hidden, WIDTH=width, S=shared_width, PDL=pdl, **sizes._asdict(),
    )  # fmt: skip
    return out
