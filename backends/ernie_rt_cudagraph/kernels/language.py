"""What kernels are made of: products of a few rows, norms, and what Triton's interpreter does in another way."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Kernels run in NumPy, on tensors of the CPU: for tests, on machines without a GPU."""


@triton.jit
def wait(PDL: tl.constexpr):
    """Every program of every kernel calls this once: before it, weights alone may be read, and nothing written.

    With programmatic dependent launch a kernel begins before the one in front of it has ended; here it waits for that.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()


@triton.jit
def release(PDL: tl.constexpr):
    """Let the next kernel begin, as far as its `wait`."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def dot(a, b, sums):
    """sums + a @ b, in float32; the interpreter's products of bfloat16 are wrong, so it gets float32 operands."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """float32 numbers in a dtype, the nearest ones; the interpreter, which cuts bfloat16 off, gets them rounded."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # or what is left makes a number of 0
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def inverse_rms(inputs, held, eps, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """1 / sqrt(mean(x²) + eps) `[1]` of a row of K numbers, which begins at the pointer `inputs [1]`; 0 numbers where
    `held [1]` is false."""
    squares = tl.zeros((1, BLOCK_K), tl.float32)
    places = tl.arange(0, BLOCK_K)
    for k in range(0, K, BLOCK_K):
        x = tl.load(inputs[:, None] + k + places, mask=held[:, None] & (k + places < K), other=0).to(tl.float32)
        squares += x * x
    return tl.rsqrt(tl.sum(squares, axis=1) / K + eps)


@triton.jit
def weight_tile(rows, wanted, k, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """`[ROWS, BLOCK_K]` numbers of a weight from place k on, of the rows that begin at the pointers `rows [ROWS]`; 0
    past their K numbers and where `wanted` is false."""
    places = k + tl.arange(0, BLOCK_K)
    return tl.load(rows[:, None] + places, mask=wanted[:, None] & (places < K), other=0)


@triton.jit
def prefetch(rows, wanted, K: tl.constexpr, PDL: tl.constexpr):
    """Have the L2 cache ask for what `weight_tile` will, all of it: called before `wait`, while memory may be idle."""
    if PDL:
        bits: tl.constexpr = rows.dtype.element_ty.primitive_bitwidth
        LINE: tl.constexpr = 1024 // bits  # numbers in 128 bytes
        places = tl.arange(0, triton.next_power_of_2(triton.cdiv(K, LINE))) * LINE
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $2, 0; @p prefetch.global.L2 [$1]; mov.b32 $0, 0; }",
            "=r,l,r",
            [(rows[:, None] + places).to(tl.int64), (wanted[:, None] & (places < K)).to(tl.int32)],
            dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def products(
    inputs, held, norm, inverse, rows, wanted,
    M: tl.constexpr, ROWS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, NORMED: tl.constexpr,
    eps=0.0, first=None,
):  # fmt: skip
    """x @ weightᵀ `[M, ROWS]` in float32, of M rows of numbers and ROWS rows of a weight, K long each.

    Pointers `inputs [M]` and `rows [ROWS]` say where they begin; a row where `held` or `wanted` is false counts as 0.
    With NORMED, which wants M = 1, the numbers are first multiplied by `inverse [1]` and the weights from pointer
    `norm` on, and rounded to the dtype that they had, which a router's float32 weight does not share. M is 1, or a
    multiple of 16 for the tensor cores.

    With M = 1 the weight's next tile is asked for before the last one is used, and its `first` one, a `weight_tile`,
    perhaps before `wait`. There `inverse` may be None: it is found from `eps` on the way, so that x is read once and
    rounded nowhere, and scales the sums.
    """
    places = tl.arange(0, BLOCK_K)
    if M == 1:
        # Each row of the weight reads x and the norm for itself, so that no thread waits for numbers of another one.
        every = tl.zeros((ROWS, 1), tl.int32)
        each = tl.zeros((ROWS, BLOCK_K), tl.float32)
        squares = tl.zeros((M, BLOCK_K), tl.float32)
        weight = weight_tile(rows, wanted, 0, K, BLOCK_K) if first is None else first
        for k in range(0, K, BLOCK_K):
            following = weight_tile(rows, wanted, k + BLOCK_K, K, BLOCK_K)
            at = every + k + places  # [ROWS, BLOCK_K]
            x = tl.load(inputs[:, None] + at, mask=held[:, None] & (at < K), other=0)
            y = x.to(tl.float32)
            if NORMED:
                scale = tl.load(norm + at, mask=at < K, other=0).to(tl.float32)
                if inverse is None:
                    # Once more, each number by one thread alone: squares of every thread's would take its registers.
                    own = tl.load(inputs[:, None] + k + places, mask=held[:, None] & (k + places < K), other=0)
                    squares += own.to(tl.float32) * own.to(tl.float32)
                    y *= scale
                else:
                    y = rounded(y * inverse[:, None] * scale, x.dtype).to(tl.float32)
            each += weight.to(tl.float32) * y
            weight = following
        sums = tl.sum(each, axis=1)
        if NORMED and inverse is None:
            sums *= tl.rsqrt(tl.sum(squares, axis=1) / K + eps)
        sums = sums[None, :]
    else:
        sums = tl.zeros((M, ROWS), tl.float32)
        for k in range(0, K, BLOCK_K):
            weight = weight_tile(rows, wanted, k, K, BLOCK_K)
            inside = k + places < K
            x = tl.load(inputs[:, None] + k + places, mask=held[:, None] & inside, other=0)  # [M, BLOCK_K]
            sums = dot(x, tl.trans(weight), sums)
    return sums


@triton.jit
def paired_rows(weight, first, stride_row, stride_half, WIDTH: tl.constexpr, PAIRS: tl.constexpr):
    """Where PAIRS rows of gate and up begin in a weight `[WIDTH, 2, K]`, from row `first` on, and which of them there
    are: pointers and mask `[2 * PAIRS]`, gate and up of a row side by side, as `gated` takes their products."""
    places = tl.arange(0, 2 * PAIRS)
    rows = first + places // 2
    return weight + rows * stride_row + places % 2 * stride_half, rows < WIDTH


@triton.jit
def gated(sums, M: tl.constexpr, PAIRS: tl.constexpr):
    """silu(gate) * up `[M, PAIRS]` of the products `[M, 2 * PAIRS]` of `paired_rows`."""
    gate, up = tl.split(tl.reshape(sums, (M, PAIRS, 2)))
    return gate * tl.sigmoid(gate) * up
