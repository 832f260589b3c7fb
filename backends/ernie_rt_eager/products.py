"""Matrix products, where PyTorch's own are not the fastest way to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final, Protocol

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

ROWS: Final = 16
"""Of a tile, in float32 on a CPU: with fewer, many tokens take longer; with more, one does."""
ROWS_OF_16_BITS: Final = 32
"""Of a tile on a CPU that multiplies 16-bit numbers: it takes hardly longer than one of 16."""
ROWS_ON_GPUS: Final = 128
"""Of a tile elsewhere, where so many take hardly longer than one."""


class Product(Protocol):
    """x @ weightᵀ + bias."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weightᵀ + bias; `x [N, H]`, `weight [O, H]`, accumulated in float32.

    A CPU without 16-bit multiply-adds runs a 16-bit product many times slower than a float32 one. There, products of
    several rows go through float32, a tile of the weight at a time. (On an AVX2 machine 512 rows went 7 times as fast.)
    """
    if len(x) < WIDE_ROWS or _multiplies(x):
        return F.linear(x, weight, bias)
    wide = x.float()
    out = torch.empty(len(x), len(weight), dtype=x.dtype)
    for tile, columns in _widened(weight):
        y = F.linear(wide, tile)
        out[:, columns] = y if bias is None else y.add_(bias[columns])
    return out


def product_in_tiles(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product`, a tile of rows at a time, the last one padded: PyTorch, which chooses how to sum by the shapes that it
    is given, always sees the same ones. What a row becomes depends neither on the others nor on its place among them.

    The weight comes first, since MKL is up to twice as fast then: its 16 rows of x become whole vectors.
    """
    count, multiplies = len(x), _multiplies(x)
    rows = ROWS_ON_GPUS
    if x.device.type == "cpu":
        rows = ROWS_OF_16_BITS if multiplies and x.itemsize == 2 else ROWS
    tiles = F.pad(x, (0, 0, 0, -count % rows)).contiguous()  # [n · rows, H]
    out = x.new_empty(len(tiles), len(weight))
    for part, columns in [(weight, slice(None))] if multiplies else _widened(weight):
        for start in range(0, len(tiles), rows):
            tile = slice(start, start + rows)
            y = part @ tiles[tile].to(part.dtype).t()  # [O, rows]
            out[tile, columns] = (y if bias is None else y.add_(bias[columns, None])).t()
    return out[:count]


def _widened(weight: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """The weight in float32, some of its rows at a time."""
    rows = max(1, TILE_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        yield weight[part].float(), part


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


def _multiplies(x: Tensor) -> bool:
    """Whether products in the dtype of x are worth having where it lies."""
    return x.device.type != "cpu" or cpu_multiplies(x.dtype)


@cache
def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the CPU has multiply-adds of this dtype."""
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
