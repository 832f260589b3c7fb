"""Products of few rows with a weight: a norm before them, and after them what a block does with their sums."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.inputs import Decodes
from ernie_rt_cudagraph.kernels.language import (
    gated,
    paired_rows,
    prefetch,
    products,
    release,
    rounded,
    wait,
    weight_tile,
)
from ernie_rt_cudagraph.launch import launch
from ernie_rt_eager.attention import LayerCache

FEW_ROWS: Final = 256
"""Up to so many rows reading the weight is what takes time; beyond, PyTorch's products are the fast ones."""
SIDE_BY_SIDE: Final = 2
"""Up to so many rows are multiplied each by programs of their own, which find the weight in the L2 cache."""


class Tiles(NamedTuple):
    """How a product is cut: M rows of activations and ROWS of the weight in a program, BLOCK_K of their numbers at a
    time."""

    M: int
    ROWS: int
    BLOCK_K: int
    num_warps: int
    num_stages: int

    @classmethod
    def of(cls, n: int, width: int, itemsize: int, *, paired: bool) -> Tiles:
        """For n rows of activations of `width` numbers, of so many bytes each. The shapes were chosen among some 40 for
        each product of the 0.3B and the 21B, by what they took on an H200.

        One row has no use for tensor cores: each program multiplies few rows of the weight, so that there are several
        programs on each processor, and together they have enough of the weight on its way. Products that are taken
        in pairs norm the row as well, which costs less where several rows of the weight share it. More rows are one
        tile, up to 64 of them; tiles come by asynchronous copies, up to 32 KiB at a time and 96 KiB together, which fit
        into the shared memory of every GPU since Ampere.
        """
        padded = triton.next_power_of_2(width)
        if n <= SIDE_BY_SIDE:
            if not paired:
                return cls(1, 1, min(2048, padded), num_warps=4, num_stages=1)
            if width == padded <= 1024:
                return cls(1, 8, width, num_warps=4, num_stages=1)
            return cls(1, 8, min(512, padded), num_warps=8, num_stages=1)
        m = min(64, max(16, triton.next_power_of_2(n)))
        block = min(min(512, (1 << 14) // m) // itemsize, max(16, padded))
        return cls(m, 32, block, num_warps=4, num_stages=3 if m == 32 else 4)

    def grid(self, n: int, out: int) -> tuple[int, int]:
        """Rows of activations first: programs that read the same weight run side by side."""
        return triton.cdiv(n, self.M), triton.cdiv(out, self.ROWS)


@triton.jit
def norm_kernel(x, norm, out, eps, K: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr):
    """out = norm(x), a row in a program; WIDTH is K, padded to a power of two."""
    k = tl.arange(0, WIDTH)
    inside = k < K
    scale = tl.load(norm + k, mask=inside, other=0).to(tl.float32)
    wait(PDL)
    release(PDL)
    place = tl.program_id(0) * K + k
    y = tl.load(x + place, mask=inside, other=0).to(tl.float32)
    y *= tl.rsqrt(tl.sum(y * y, axis=0) / K + eps) * scale
    tl.store(out + place, rounded(y, out.dtype.element_ty), mask=inside)


@triton.jit
def linear_kernel(
    x, norm, weight, bias, residual, out, eps, N,
    OUT: tl.constexpr, K: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = residual + norm(x) @ weightᵀ + bias; norm, which wants M = 1, bias and residual may be None."""
    n = tl.program_id(0) * M + tl.arange(0, M)
    o = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    held, wanted = n < N, o < OUT
    places, inside = n[:, None] * OUT + o, held[:, None] & wanted
    rows = weight + o.to(tl.int64) * K
    first = weight_tile(rows, wanted, 0, K, BLOCK_K)
    prefetch(rows, wanted, K, PDL)
    added = tl.zeros((M, ROWS), tl.float32)  # before the products, so that none of it is waited for after them
    if bias is not None:
        added += tl.load(bias + o, mask=wanted, other=0).to(tl.float32)
    wait(PDL)
    release(PDL)
    if residual is not None:
        added += tl.load(residual + places, mask=inside, other=0).to(tl.float32)
    y = added + products(
        x + n * K, held, norm, None, rows, wanted, M, ROWS, K, BLOCK_K, norm is not None, eps, first
    )  # [M, ROWS]
    tl.store(out + places, rounded(y, out.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_kernel(
    x, norm, weight, bias, out, eps, N, row_stride, half_stride, bias_row_stride, bias_half_stride,
    OUT: tl.constexpr, K: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = silu(gate) * up of norm(x) @ weightᵀ + bias, with weight `[OUT, 2, K]` of any strides but in K."""
    PAIRS: tl.constexpr = ROWS // 2
    n = tl.program_id(0) * M + tl.arange(0, M)
    start = tl.program_id(1) * PAIRS
    held = n < N
    rows, wanted = paired_rows(weight, start, row_stride, half_stride, OUT, PAIRS)
    first = weight_tile(rows, wanted, 0, K, BLOCK_K)
    prefetch(rows, wanted, K, PDL)
    added = tl.zeros((ROWS,), tl.float32)
    if bias is not None:
        biases, _ = paired_rows(bias, start, bias_row_stride, bias_half_stride, OUT, PAIRS)
        added += tl.load(biases, mask=wanted, other=0).to(tl.float32)
    wait(PDL)
    release(PDL)
    y = added + products(
        x + n * K, held, norm, None, rows, wanted, M, ROWS, K, BLOCK_K, norm is not None, eps, first
    )  # [M, ROWS]
    o = start + tl.arange(0, PAIRS)
    y = rounded(gated(y, M, PAIRS), out.dtype.element_ty)
    tl.store(out + n[:, None] * OUT + o, y, mask=held[:, None] & (o < OUT))


@triton.jit
def qkv_kernel(
    x, norm, weight, bias, cos, sin, positions, index, seat, tables, q, k_cache, v_cache, eps, N, pages_of_seat,
    Q: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, PAGE_SIZE: tl.constexpr,
    K: tl.constexpr, M: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """norm(x) @ weightᵀ + bias, q and k of it rotated; q goes to `q [N, Q, D]`, k and v to the cache's row of each
    token, those of padding rows nowhere.

    cos and sin are `[P, D/2]`, read at `positions`, or without positions have a row for each token.
    """
    n = tl.program_id(0) * M + tl.arange(0, M)
    o = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    held, wanted = n < N, o < (Q + 2 * KV) * D
    rows = weight + o.to(tl.int64) * K
    first = weight_tile(rows, wanted, 0, K, BLOCK_K)
    prefetch(rows, wanted, K, PDL)
    added = tl.zeros((ROWS,), tl.float32)
    if bias is not None:
        added += tl.load(bias + o, mask=wanted, other=0).to(tl.float32)
    wait(PDL)
    release(PDL)
    place = tl.load(index + n, mask=held, other=-1)
    live = held & (place >= 0)
    page = tl.load(tables + tl.load(seat + n, mask=live, other=0) * pages_of_seat + place // PAGE_SIZE, mask=live)
    cached = page.to(tl.int64) * PAGE_SIZE + place % PAGE_SIZE  # [M]
    angle = n
    if positions is not None:
        angle = tl.load(positions + n, mask=live, other=0)
    pair = tl.program_id(1) * ROWS + 2 * tl.arange(0, ROWS // 2)
    turned = live[:, None] & (pair < (Q + KV) * D)
    entry = angle[:, None] * (D // 2) + pair % D // 2
    c = tl.load(cos + entry, mask=turned, other=1)  # [M, ROWS / 2]; v is turned by nothing
    s = tl.load(sin + entry, mask=turned, other=0)

    y = added + products(
        x + n * K, held, norm, None, rows, wanted, M, ROWS, K, BLOCK_K, norm is not None, eps, first
    )  # [M, ROWS]
    even, odd = tl.split(tl.reshape(y, (M, ROWS // 2, 2)))
    y = rounded(tl.reshape(tl.join(even * c - odd * s, odd * c + even * s), (M, ROWS)), q.dtype.element_ty)
    k, v = o - Q * D, o - (Q + KV) * D
    tl.store(q + n[:, None] * (Q * D) + o, y, mask=held[:, None] & (k < 0))
    written = cached[:, None] * (KV * D)
    tl.store(k_cache + written + k, y, mask=live[:, None] & (k >= 0) & (v < 0))
    tl.store(v_cache + written + v, y, mask=live[:, None] & (v >= 0) & wanted)


def rms_norm(x: Tensor, norm: Tensor, *, eps: float, pdl: bool = False) -> Tensor:
    """The op of this name: `x [N, K]` and `norm [K]` give `[N, K]`, rounded once."""
    (n, width), out = x.shape, torch.empty_like(x)
    launch(
        norm_kernel, (n,), num_warps=8,
        x=x, norm=norm, out=out, eps=eps, K=width, WIDTH=triton.next_power_of_2(width), PDL=pdl,
    )  # fmt: skip
    return out


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    pdl: bool = False,
) -> Tensor:
    """residual + rms_norm(x) @ weightᵀ + bias, rounded once; `x [N, K]` and `weight [O, K]` give `[N, O]`."""
    x, norm = _normed(x, norm, eps, pdl)
    (n, width), rows = x.shape, len(weight)
    tiles, out = Tiles.of(n, width, x.element_size(), paired=False), x.new_empty(n, rows)
    launch(
        linear_kernel, tiles.grid(n, rows),
        x=x, norm=norm, weight=weight, bias=bias, residual=residual, out=out, eps=eps, N=n,
        OUT=rows, K=width, PDL=pdl, **tiles._asdict(),
    )  # fmt: skip
    return out


def swiglu_linear(
    x: Tensor, gate_up: Tensor, bias: Tensor | None, *, norm: Tensor | None, eps: float = 0.0, pdl: bool = False
) -> Tensor:
    """swiglu(rms_norm(x) @ gate_upᵀ + bias): `x [N, K]` and `gate_up [I, 2, K]` give `[N, I]`, rounded once."""
    x, norm = _normed(x, norm, eps, pdl)
    (n, width), rows = x.shape, len(gate_up)
    tiles, out = Tiles.of(n, width, x.element_size(), paired=True), x.new_empty(n, rows)
    bias_strides = (0, 0) if bias is None else bias.stride()
    launch(
        swiglu_kernel, tiles.grid(n, 2 * rows),
        x=x, norm=norm, weight=gate_up, bias=bias, out=out, eps=eps, N=n,
        row_stride=gate_up.stride(0), half_stride=gate_up.stride(1),
        bias_row_stride=bias_strides[0], bias_half_stride=bias_strides[1],
        OUT=rows, K=width, PDL=pdl, **tiles._asdict(),
    )  # fmt: skip
    return out


def qkv_linear(
    x: Tensor,
    qkv: Tensor,
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    cache: LayerCache,
    decodes: Decodes,
    *,
    norm: Tensor | None,
    eps: float,
    pdl: bool = False,
) -> Tensor:
    """Write rotated k, and v, of rms_norm(x) @ qkvᵀ + bias to the cache's rows of these tokens; gives q `[N, Q, D]`."""
    x, norm = _normed(x, norm, eps, pdl)
    (n, width), (_, kv_heads, head_dim) = x.shape, cache.k.shape
    heads = len(qkv) // head_dim - 2 * kv_heads
    tiles, q = Tiles.of(n, width, x.element_size(), paired=True), x.new_empty(n, heads, head_dim)
    launch(
        qkv_kernel, tiles.grid(n, len(qkv)),
        x=x, norm=norm, weight=qkv, bias=bias, cos=cos, sin=sin, positions=positions,
        index=decodes.index, seat=decodes.seat, tables=decodes.tables, q=q, k_cache=cache.k, v_cache=cache.v,
        eps=eps, N=n, pages_of_seat=decodes.tables.stride(0),
        Q=heads, KV=kv_heads, D=head_dim, PAGE_SIZE=decodes.page_size,
        K=width, PDL=pdl, **tiles._asdict(),
    )  # fmt: skip
    return q


def _normed(x: Tensor, norm: Tensor | None, eps: float, pdl: bool) -> tuple[Tensor, Tensor | None]:
    """What a product is to read, and the norm that is left to it.

    Programs of one row norm it as they read it. Tensor cores take numbers that are normed and rounded, which a kernel
    of its own makes once, where every program of the product would have to do so.
    """
    if norm is None or len(x) <= SIDE_BY_SIDE:
        return x, norm
    return rms_norm(x, norm, eps=eps, pdl=pdl), None
