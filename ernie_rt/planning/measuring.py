"""How fast this machine reads memory and multiplies, by NumPy alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

PASSES: Final = 7
SMALLEST: Final = 512
LARGEST: Final = 8192
LONG_ENOUGH: Final = 0.004
"""Seconds that a product takes at least whose time says something."""
PRODUCT_SECONDS: Final = 0.1
"""How long products of the final size are repeated: the fastest one counts."""


def read_bandwidth(threads: int, nbytes: int) -> float:
    """Bytes a second at which this many threads read memory together, which should be more of it than caches hold.

    It is the median of several passes. A bitwise or over 64-bit integers reads as fast as C does, without the GIL.
    """
    parts = [np.empty(nbytes // threads // 8, np.uint64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def seconds(work: Callable[[np.ndarray[Any, Any]], object]) -> float:
            began = time.perf_counter()
            list(pool.map(work, parts))
            return time.perf_counter() - began

        seconds(lambda part: part.fill(1))  # before it is written to, no memory is behind an array
        seconds(np.bitwise_or.reduce)
        passes = [seconds(np.bitwise_or.reduce) for _ in range(PASSES)]
    return sum(part.nbytes for part in parts) / statistics.median(passes)


def product_flops() -> float:
    """FLOPs a second of products of float32 matrices, by the library of NumPy, which uses the threads that it wants."""
    size = SMALLEST
    matrix = np.ones((size, size), np.float32)
    _product_seconds(matrix)  # starts the threads
    while (seconds := _product_seconds(matrix)) < LONG_ENOUGH and size < LARGEST:
        size *= 2
        matrix = np.ones((size, size), np.float32)
    until = time.perf_counter() + PRODUCT_SECONDS
    while time.perf_counter() < until:
        seconds = min(seconds, _product_seconds(matrix))
    return 2 * size**3 / seconds


def _product_seconds(matrix: np.ndarray[Any, Any]) -> float:
    began = time.perf_counter()
    np.matmul(matrix, matrix)
    return time.perf_counter() - began
