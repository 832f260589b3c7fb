"""What a block of experts begins with: its norm, the router, each token's experts, and each expert's tokens."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.kernels.language import (
    gated,
    inverse_rms,
    paired_rows,
    products,
    release,
    rounded,
    wait,
    weight_tile,
)
from ernie_rt_cudagraph.launch import launch

MAX_EXPERTS: Final = 256
"""Choosing compares each expert with each other at once, in registers."""

LOWEST: Final = tl.constexpr(-3e38)


class Sizes(NamedTuple):
    """How `begin` is cut: a program has GATES experts or PAIRS of shared gate and up."""

    PAIRS: int
    GATES: int
    BLOCK_K: int
    num_warps: int
    num_stages: int


def begin_sizes(width: int, shared: bool) -> Sizes:
    """Shared experts are most of the work where they come along: they have tiles of 4 KiB of 16-bit weights, so that
    many programs fit on a multiprocessor. The router alone has long ones: nobody waits for memory so often."""
    block = min(triton.next_power_of_2(width), 256 if shared else 1024)
    return Sizes(PAIRS=1024 // block, GATES=1 if shared else 2048 // block, BLOCK_K=block, num_warps=4, num_stages=1)


@triton.jit
def _norm_row(x, norm, normed, row, eps, H: tl.constexpr, BLOCK_K: tl.constexpr):
    rows = row.to(tl.int64) + tl.arange(0, 1)
    inverse = inverse_rms(x + rows * H, rows >= 0, eps, H, BLOCK_K)
    for k in range(0, H, BLOCK_K):
        place = k + tl.arange(0, BLOCK_K)
        at, inside = rows[:, None] * H + place, (place < H)[None, :]
        y = tl.load(x + at, mask=inside, other=0).to(tl.float32) * inverse[:, None]
        y *= tl.load(norm + place, mask=place < H, other=0).to(tl.float32)
        tl.store(normed + at, rounded(y, normed.dtype.element_ty), mask=inside)


@triton.jit
def _router(
    x, norm, gate, logits, eps, row, held, tile,
    E: tl.constexpr, GATES: tl.constexpr, H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """norm(x) @ gateᵀ of GATES experts: numbers rounded to the activations' dtype meet a gate in float32."""
    expert = tile * GATES + tl.arange(0, GATES)
    inputs, wanted = x + row * H, expert < E
    inverse = inverse_rms(inputs, held, eps, H, BLOCK_K)
    sums = products(inputs, held, norm, inverse, gate + expert * H, wanted, 1, GATES, H, BLOCK_K, True)
    tl.store(logits + row[:, None] * E + expert, sums, mask=held[:, None] & wanted)


@triton.jit
def _shared(
    x, norm, bias, inner, bias_stride_row, bias_stride_half, eps, row, held, first, rows, wanted, ahead,
    S: tl.constexpr, PAIRS: tl.constexpr, H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """swiglu(norm(x) @ gate_upᵀ + bias) of PAIRS `rows` of gate and up, whose first numbers are `ahead`."""
    sums = products(x + row * H, held, norm, None, rows, wanted, 1, 2 * PAIRS, H, BLOCK_K, True, eps, ahead)
    if bias is not None:
        biases, _ = paired_rows(bias, first, bias_stride_row, bias_stride_half, S, PAIRS)
        sums += tl.load(biases, mask=wanted, other=0).to(tl.float32)
    place = first + tl.arange(0, PAIRS)
    y = rounded(gated(sums, 1, PAIRS), inner.dtype.element_ty)
    tl.store(inner + row[:, None] * S + place, y, mask=held[:, None] & (place < S))


@triton.jit(do_not_specialize=["N"])
def _begin(
    x, norm, gate, gate_up, gate_up_bias, normed, logits, inner,
    N, stride_row, stride_half, bias_stride_row, bias_stride_half, eps,
    H: tl.constexpr, E: tl.constexpr, S: tl.constexpr,
    PAIRS: tl.constexpr, GATES: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Programs of a row are of three kinds: one that writes its norm, those of the router's experts, and those of the
    shared experts' gate and up."""
    program = tl.program_id(0) - N
    tile = program // N  # rows of one tile side by side: they read the same weights, from the L2 cache
    row = program % N + tl.arange(0, 1).to(tl.int64)
    held = row < N
    shared_tile = tile - tl.cdiv(E, GATES)
    if gate_up is not None:
        first = shared_tile * PAIRS
        rows, wanted = paired_rows(gate_up, first, stride_row, stride_half, S, PAIRS)
        ahead = weight_tile(rows, wanted & (first >= 0), 0, H, BLOCK_K)
    wait(PDL)
    release(PDL)
    if program < 0:
        _norm_row(x, norm, normed, program + N, eps, H, BLOCK_K)
    elif shared_tile < 0:
        _router(x, norm, gate, logits, eps, row, held, tile, E, GATES, H, BLOCK_K)
    elif gate_up is not None:
        _shared(
            x, norm, gate_up_bias, inner, bias_stride_row, bias_stride_half, eps, row, held, first, rows, wanted, ahead,
            S, PAIRS, H, BLOCK_K,
        )  # fmt: skip


def begin(
    x: Tensor,
    norm: Tensor,
    gate: Tensor,
    shared_gate_up: Tensor | None,
    shared_gate_up_bias: Tensor | None,
    *,
    eps: float,
    pdl: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All that waits for no choice, of few rows: rms_norm(x) `[N, H]`, the router's float32 logits `[N, E]`, and, when
    their weights are given, the shared experts' swiglu(gate_up) `[N, S]`."""
    count, width = x.shape
    experts = len(gate)
    sizes = begin_sizes(width, shared_gate_up is not None)
    tiles = triton.cdiv(experts, sizes.GATES)
    shared, inner = 0, None
    if shared_gate_up is not None:
        shared = len(shared_gate_up)
        tiles += triton.cdiv(shared, sizes.PAIRS)
        inner = x.new_empty(count, shared)
    normed, logits = torch.empty_like(x), x.new_empty(count, experts, dtype=torch.float32)
    row, half = (0, 0) if shared_gate_up is None else shared_gate_up.stride()[:2]
    bias_row, bias_half = (0, 0) if shared_gate_up_bias is None else shared_gate_up_bias.stride()
    launch(
        _begin, (count * (1 + tiles),),
        x=x, norm=norm, gate=gate, gate_up=shared_gate_up, gate_up_bias=shared_gate_up_bias,
        normed=normed, logits=logits, inner=inner, N=count, stride_row=row, stride_half=half,
        bias_stride_row=bias_row, bias_stride_half=bias_half, eps=eps,
        H=width, E=experts, S=shared, PDL=pdl, **sizes._asdict(),
    )  # fmt: skip
    return normed, logits, inner


@triton.jit
def chosen(logits, correction_bias, norm_min, A: tl.constexpr, E: tl.constexpr, EXPERTS: tl.constexpr):
    """The place of each expert in the order of a token's choice `[EXPERTS]`, of which the first A are taken, and the
    weights that they have then; `logits` points at the token's `[E]`, and EXPERTS is a power of two.

    The order is total whatever the numbers are, so that every token chooses A experts: ties go to the lowest id, and
    NaN is the smallest number.
    """
    expert = tl.arange(0, EXPERTS)
    there = expert < E
    logit = tl.load(logits + expert, mask=there, other=float("-inf"))
    probability = tl.exp(logit - tl.max(tl.where(logit > LOWEST, logit, LOWEST), axis=0))  # of NaN there is no largest
    probability /= tl.sum(probability, axis=0)
    score = probability
    if correction_bias is not None:
        score += tl.load(correction_bias + expert, mask=there, other=0)
    score = tl.where(there & (score == score), score, float("-inf"))
    other = score[None, :]
    ahead = (other > score[:, None]) | ((other == score[:, None]) & (expert[None, :] < expert[:, None]))
    place = tl.sum(ahead.to(tl.int32), axis=1)
    total = tl.sum(tl.where(place < A, probability, 0.0), axis=0)
    return place, probability / tl.maximum(total, norm_min)


@triton.jit
def served(row, live, mask):
    """Whether experts are read for a row: it is a token, and no padding, and the mask, if there is one, says so."""
    found = row < tl.load(live)
    if mask is not None:
        found = found & tl.load(mask + row)
    return found


@triton.jit
def _choose(
    logits, correction_bias, live, mask, ids, weights, norm_min,
    A: tl.constexpr, E: tl.constexpr, EXPERTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    release(PDL)
    row = tl.program_id(0)
    place, weight = chosen(logits + row * E, correction_bias, norm_min, A, E, EXPERTS)
    taken = place < A
    expert = tl.where(served(row, live, mask), tl.arange(0, EXPERTS), -1)
    tl.store(ids + row * A + place, expert, mask=taken)
    tl.store(weights + row * A + place, rounded(weight, weights.dtype.element_ty), mask=taken)


def choose(
    logits: Tensor,
    correction_bias: Tensor | None,
    *,
    top_k: int,
    norm_min: float,
    dtype: torch.dtype,
    mask: Tensor | None = None,
    live: Tensor,
) -> tuple[Tensor, Tensor]:
    """The chosen experts and their weights `[N, A]`, of the router's logits `[N, E]`; -1 for rows of padding, and where
    the mask `[N]` is false."""
    rows, experts = logits.shape
    ids = logits.new_empty(rows, top_k, dtype=torch.int32)
    weights = logits.new_empty(rows, top_k, dtype=dtype)
    launch(
        _choose, (rows,), num_warps=4, num_stages=1,
        logits=logits, correction_bias=correction_bias, live=live, mask=mask, ids=ids, weights=weights,
        norm_min=norm_min,
        A=top_k, E=experts, EXPERTS=triton.next_power_of_2(experts), PDL=False,
    )  # fmt: skip
    return ids, weights


def group_block(pairs: int) -> int:
    """How many pairs a program looks at together: all of a step of decodes, and of prompts what 4 warps hold well."""
    return min(max(triton.next_power_of_2(pairs), 16), 2048)


@triton.jit(do_not_specialize=["pairs"])
def _group(ids, order, starts, pairs, E: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    wait(PDL)
    release(PDL)
    expert = tl.program_id(0)
    places = tl.arange(0, BLOCK)
    place = 0
    for first in range(0, pairs, BLOCK):
        chosen_by = tl.load(ids + first + places, mask=first + places < pairs, other=-1)
        place += tl.sum(((chosen_by >= 0) & (chosen_by < expert)).to(tl.int32), axis=0)
    tl.store(starts + expert, place)
    for first in range(0, pairs, BLOCK):
        chosen_by = tl.load(ids + first + places, mask=first + places < pairs, other=-1)
        mine = (chosen_by == expert).to(tl.int32)
        tl.store(order + place + tl.cumsum(mine, axis=0) - 1, first + places, mask=mine == 1)
        place += tl.sum(mine, axis=0)
    if expert == E - 1:
        tl.store(starts + E, place)


def group(ids: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """The pairs n · A + a by the expert `ids [N, A]` names, in their own order within it: `order [N * A]`, and where
    each expert's begin in it, `starts [E + 1]`. Pairs of expert -1 are in no group, and as many places left unwritten.

    One program an expert counts what comes before its own pairs, then places them: nothing depends on who is first.
    """
    order, starts = (ids.new_empty(size, dtype=torch.int32) for size in (ids.numel(), experts + 1))
    launch(
        _group, (experts,), num_warps=4, num_stages=1,
        ids=ids, order=order, starts=starts, pairs=ids.numel(), E=experts, BLOCK=group_block(ids.numel()), PDL=False,
    )  # fmt: skip
    return order, starts
