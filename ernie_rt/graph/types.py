"""The nouns of a graph: dtypes, dims, tensor types, and what a node may read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

DType = Literal["float64", "float32", "bfloat16", "float16", "int32", "uint8", "bool"]
DTYPES: Final[tuple[DType, ...]] = get_args(DType)
FLOATS: Final[tuple[DType, ...]] = ("float64", "float32", "bfloat16", "float16")
ITEM_SIZE: Final[Mapping[DType, int]] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int32": 4,
    "uint8": 1,
    "bool": 1,
}
SHORT: Final[Mapping[DType, str]] = {
    "float64": "f64",
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
    "int32": "i32",
    "uint8": "u8",
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

    @property
    def wide(self) -> DType:
        """What is computed in whatever activations are: float32, or float64 where the graph is float64 throughout."""
        return "float64" if self.dtype == "float64" else "float32"


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


TILE_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Blocks:
    """A storage: integers of 4 or 8 bits, with a float16 scale for each `block` of them along the last axis, K.

    A number is `(code - zero) * scale`. Parts of a weight `[.., R, K]` or, gate and up, `[.., R, 2, K]`:

    - "raw", the order of ONNX Runtime's MatMulNBits: `codes` u8 `[.., K * bits / 8]`, of a byte the low nibble the even
      k; `scales` f16 `[.., K / block]`.
    - "tiled", in which a kernel streams 16 rows at once: R counts tiles, the last one filled up with zeros, `codes` are
      `[.., 16 * K * bits / 8]` and `scales` `[.., 16 * K / block]`. Every 64 bytes of a tile, the c-th, hold 4 of each
      row: of int8 the numbers 4c to 4c + 3; of int4 byte j has number 8c + j in its low nibble and 8c + 4 + j in its
      high one. Scales are in the order of the blocks, 16 rows' of each.
    """

    bits: Literal[4, 8]
    block: Literal[32, 64, 128]
    layout: Literal["raw", "tiled"] = "raw"

    def __str__(self) -> str:
        return f"int{self.bits}/{self.block}{' tiled' if self.layout == 'tiled' else ''}"

    @property
    def zero(self) -> int:
        """The code of the number zero."""
        return 1 << (self.bits - 1)

    def problem(self, type: TensorType) -> str | None:
        """Why a tensor cannot be stored so, or None."""
        *rows, columns = type.shape()
        if columns % self.block:
            return f"blocks of {self.block} do not divide its last axis"
        axis = self._tiled_axis(type)
        if self.layout == "tiled" and len(rows) > -axis and rows[axis] % TILE_ROWS:
            return f"tiles of {TILE_ROWS} do not divide the rows of an expert"
        return None

    def parts(self, type: TensorType) -> dict[str, TensorType]:
        *rows, columns = type.shape()
        tile = 1
        if self.layout == "tiled":
            tile = TILE_ROWS
            rows[self._tiled_axis(type)] = -(-rows[self._tiled_axis(type)] // tile)
        return {
            "codes": TensorType("uint8", (*rows, tile * columns * self.bits // 8)),
            "scales": TensorType("float16", (*rows, tile * columns // self.block)),
        }

    @staticmethod
    def _tiled_axis(type: TensorType) -> int:
        """The axis R, counted from the end of all axes but K."""
        return -2 if len(type.dims) > 2 and type.dims[-2] == 2 else -1


def blocks_of(bits: object, block: object, layout: object) -> Blocks:
    """The storage that a file describes so, or ValueError."""
    for known in (Blocks(b, n, way) for b in (4, 8) for n in (32, 64, 128) for way in ("raw", "tiled")):
        if (known.bits, known.block, known.layout) == (bits, block, layout):
            return known
    raise ValueError(f"no storage of {bits!r} bits in blocks of {block!r}, layout {layout!r}")


Storage = Plain | RopeTable | Blocks
"""How a weight is stored."""


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
