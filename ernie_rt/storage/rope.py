"""Rotary position tables, computed once by the core by transformers' float32 rule and handed to every backend.

NumPy is imported when a table is computed, since graphs, which do without it, have tables as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ernie_rt.graph.types import Array, Storage, TensorType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS_AT_ONCE: Final = 4096
"""Rows evaluated together: bounds the float64 temporaries to a few MB whatever the context length."""


@dataclass(frozen=True, slots=True)
class RopeTable(Storage):
    """Nobody stores it: cos or sin of position * frequency.

    The table is `f32[P, D/2]`; P, how many positions it covers, is bound when a model is compiled.
    """

    kind = "rope"
    stored = False
    packed = False

    function: Literal["cos", "sin"]
    theta: float
    compression_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.function not in ("cos", "sin"):
            raise ValueError(f"a table of {self.function!r}, which is neither cos nor sin")

    def __str__(self) -> str:
        return f"rope {self.function}, theta {self.theta:g}"

    def compute(self, type: TensorType, out: Array, index: tuple[int, ...], first: int = 0) -> None:
        """`out` may have any number of rows."""
        columns = type.dims[1]
        assert isinstance(columns, int), "a rope table's columns are D/2"
        if index:
            out[...] = rope_table(self, 1, columns, index[0])[(0, *index[1:])]
        else:
            out[...] = rope_table(self, out.shape[0], columns, first)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RopeTable:
        return cls(data["function"], float(data["theta"]), float(data["compression_ratio"]))


def inverse_frequencies(head_dim: int, theta: float) -> NDArray[np.float32]:
    """theta^(-2i / head_dim) for i = 0 … head_dim/2 - 1, as f32[D/2].

    transformers' `1.0 / (theta ** (torch.arange(0, D, 2, dtype=float32) / D))` with every intermediate rounded to
    float32. The power is the correctly rounded one; torch's is at most one ulp from it, and equal for ERNIE's theta
    and head sizes.
    """
    import numpy as np

    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float64(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def rope_table(table: RopeTable, rows: int, columns: int, first: int = 0) -> NDArray[np.float32]:
    """The cos or sin of every angle, f32[rows, columns]: of positions from `first` on, and columns = D/2. The caller
    owns the array.

    The angle is float32(position / compression_ratio) * inverse frequency, rounded to float32 as in transformers;
    its cosine or sine is then evaluated in float64 and rounded once, so that every machine gets the same bits.
    """
    import numpy as np

    function = np.cos if table.function == "cos" else np.sin
    frequencies = inverse_frequencies(2 * columns, table.theta)
    out = np.empty((rows, columns), np.float32)
    for start in range(0, rows, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, rows)
        positions = (np.arange(first + start, first + stop, dtype=np.float64) / table.compression_ratio).astype(
            np.float32
        )
        angles = positions[:, None] * frequencies
        out[start:stop] = function(angles.astype(np.float64))
    return out
