"""Matrix products, where PyTorch's own are not the fastest way to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE_ROWS: Final = 8
"""From so many rows on, widening a weight once costs less than what the float32 product saves."""
CUDA_SHORTCUTS: Final = (
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_reduced_precision_reduction",
    "allow_tf32",
)
TILE_ELEMENTS: Final = 1 << 20
"""How much of a weight is widened at a time: 4 MiB in float32, so that it stays in cache until it is used."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weightᵀ + bias; `x [N, H]`, `weight [O, H]`, accumulated in float32.

    A CPU without 16-bit multiply-adds runs a 16-bit product many times slower than a float32 one. There, products of
    several rows go through float32, a tile of the weight at a time. (On an AVX2 machine 512 rows went 7 times as fast.)
    """
    if len(x) < WIDE_ROWS or x.device.type != "cpu" or _multiplies(x.dtype):
        return F.linear(x, weight, bias)
    wide = x.float()
    out = torch.empty(len(x), len(weight), dtype=x.dtype)
    rows = max(1, TILE_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        tile = slice(start, start + rows)
        y = F.linear(wide, weight[tile].float())
        out[:, tile] = y if bias is None else y.add_(bias[tile])
    return out


@contextmanager
def exact_sums(device: torch.device) -> Iterator[None]:
    """Have CUDA sum 16-bit products in float32, and multiply float32 as float32, while the block runs."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = {name: getattr(matmul, name) for name in CUDA_SHORTCUTS}
    try:
        for name in CUDA_SHORTCUTS:
            setattr(matmul, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has products of this dtype that are worth having."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
