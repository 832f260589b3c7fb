"""Rotary position tables, computed once by the core by transformers' float32 rule and handed to every backend."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ernie_rt.graph.types import RopeTable

ROWS_AT_ONCE: Final = 4096
"""Rows evaluated together: bounds the float64 temporaries to a few MB whatever the context length."""


def inverse_frequencies(head_dim: int, theta: float) -> NDArray[np.float32]:
    """theta^(-2i / head_dim) for i = 0 … head_dim/2 - 1, as f32[D/2].

    transformers' `1.0 / (theta ** (torch.arange(0, D, 2, dtype=float32) / D))` with every intermediate rounded to
    float32. The power is the correctly rounded one; torch's is at most one ulp from it, and equal for ERNIE's theta
    and head sizes.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float64(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def rope_table(table: RopeTable, rows: int, columns: int) -> NDArray[np.float32]:
    """The cos or sin of every angle, f32[rows, columns]; row = position, columns = D/2. The caller owns the array.

    The angle is float32(position / compression_ratio) * inverse frequency, rounded to float32 as in transformers;
    its cosine or sine is then evaluated in float64 and rounded once, so that every machine gets the same bits.
    """
    function = np.cos if table.function == "cos" else np.sin
    frequencies = inverse_frequencies(2 * columns, table.theta)
    out = np.empty((rows, columns), np.float32)
    for start in range(0, rows, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, rows)
        positions = (np.arange(start, stop, dtype=np.float64) / table.compression_ratio).astype(np.float32)
        angles = positions[:, None] * frequencies
        out[start:stop] = function(angles.astype(np.float64))
    return out
