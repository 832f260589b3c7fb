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
def inverse_rms(inputs, held, eps, M: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """1 / sqrt(mean(x²) + eps) `[M]` of M rows of K numbers, which begin at the pointers `inputs [M]`; 0 numbers where
    `held [M]` is false."""
    squares = tl.zeros((M, BLOCK_K), tl.float32)
    places = tl.arange(0, BLOCK_K)
    for k in range(0, K, BLOCK_K):
        x = tl.load(inputs[:, None] + k + places, mask=held[:, None] & (k + places < K), other=0).to(tl.float32)
        squares += x * x
    return tl.rsqrt(tl.sum(squares, axis=1) / K + eps)


@triton.jit
def products(
    inputs, held, norm, inverse, rows, wanted,
    M: tl.constexpr, ROWS: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """x @ weightᵀ `[M, ROWS]` in float32, of M rows of numbers and ROWS rows of a weight, K long each.

    Pointers `inputs [M]` and `rows [ROWS]` say where they begin; a row where `held` or `wanted` is false counts as 0.
    With NORMED the numbers are first multiplied by `inverse [M]` and the weights from pointer `norm` on, and rounded to
    the weight's dtype. M is 1, or a multiple of 16 for the tensor cores.
    """
    places = tl.arange(0, BLOCK_K)
    if M == 1:
        each = tl.zeros((ROWS, BLOCK_K), tl.float32)
    else:
        sums = tl.zeros((M, ROWS), tl.float32)
    for k in range(0, K, BLOCK_K):
        inside = k + places < K
        weight = tl.load(rows[:, None] + k + places, mask=wanted[:, None] & inside, other=0)  # [ROWS, BLOCK_K]
        x = tl.load(inputs[:, None] + k + places, mask=held[:, None] & inside, other=0)  # [M, BLOCK_K]
        if NORMED:
            scale = tl.load(norm + k + places, mask=inside, other=0).to(tl.float32)
            x = (x.to(tl.float32) * inverse[:, None] * scale).to(weight.dtype)
        if M == 1:
            each += weight.to(tl.float32) * x.to(tl.float32)
        else:
            sums = dot(x, tl.trans(weight), sums)
    if M == 1:
        sums = tl.sum(each, axis=1)[None, :]
    return sums
