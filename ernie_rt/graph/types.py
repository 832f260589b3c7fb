"""The nouns of a graph: dtypes, dims, tensor types, and what a node may read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

DType = Literal["float64", "float32", "bfloat16", "float16", "int32", "bool"]
DTYPES: Final[tuple[DType, ...]] = get_args(DType)
FLOATS: Final[tuple[DType, ...]] = ("float64", "float32", "bfloat16", "float16")
ITEM_SIZE: Final[Mapping[DType, int]] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int32": 4,
    "bool": 1,
}
SHORT: Final[Mapping[DType, str]] = {
    "float64": "f64",
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
    "int32": "i32",
    "bool": "bool",
}

Dim = int | str
"""A dim is a number, or a symbolic axis: N new tokens, C context rows, L logits rows, R cache rows, P positions."""

Attr = bool | int | float | str | tuple[int, ...] | tuple[str, ...] | tuple[int | str, ...]


def dtype_of(name: str) -> DType:
    """Return `name` as a DType, or raise ValueError."""
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; one of {', '.join(DTYPES)}")
    return name


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dtype and dims; `str()` is `bf16[N, 2560]`."""

    dtype: DType
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}[{', '.join(map(str, self.dims))}]"

    def shape(self, bindings: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """The dims as numbers, symbolic ones looked up in `bindings` (KeyError when absent)."""
        known = bindings or {}
        return tuple(d if isinstance(d, int) else known[d] for d in self.dims)

    def elements(self, bindings: Mapping[str, int] | None = None) -> int:
        return math.prod(self.shape(bindings))

    def nbytes(self, bindings: Mapping[str, int] | None = None) -> int:
        return self.elements(bindings) * ITEM_SIZE[self.dtype]

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.dims)


@dataclass(frozen=True, slots=True)
class Plain:
    """A storage: the tensor as it is, in one float dtype. Its only part is `data`."""

    dtype: DType

    def __str__(self) -> str:
        return SHORT[self.dtype]

    def parts(self, type: TensorType) -> dict[str, TensorType]:
        """The stored parts of a logical tensor, by name."""
        return {"data": type.with_dtype(self.dtype)}


@dataclass(frozen=True, slots=True)
class RopeTable:
    """A storage that nobody stores: cos or sin of position * frequency, computed by the core (`ernie_rt.model.rope`).

    The table is `f32[P, D/2]`; P, how many positions it covers, is bound when a model is compiled.
    """

    function: Literal["cos", "sin"]
    theta: float
    compression_ratio: float = 1.0

    def __str__(self) -> str:
        return f"rope {self.function}, theta {self.theta:g}"

    def parts(self, type: TensorType) -> dict[str, TensorType]:
        return {"data": type}


Storage = Plain | RopeTable
"""How a weight is stored. A union that grows with int8, int4, …"""


@dataclass(frozen=True, slots=True)
class Value:
    """What a node produces, or a graph takes in. Names are unique within a graph."""

    name: str
    type: TensorType

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class Weight:
    """A logical tensor of the model and how it is stored; never bytes.

    `type.dtype` is the dtype it takes part in computations as, `storage` how its source keeps it.
    """

    name: str
    type: TensorType
    storage: Storage

    def __str__(self) -> str:
        return f"@{self.name}"

    def nbytes(self, bindings: Mapping[str, int] | None = None) -> int:
        """Bytes of all stored parts."""
        return sum(part.nbytes(bindings) for part in self.storage.parts(self.type).values())


@dataclass(frozen=True, slots=True)
class State:
    """One layer's K and V rows: logically `[R, 2, K, D]`, R cache rows; the physical layout is the backend's."""

    name: str
    type: TensorType

    def __str__(self) -> str:
        return f"${self.name}"


Operand = Value | Weight | State | None
"""What a node reads; None stands for an optional input that is absent."""
