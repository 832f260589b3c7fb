"""The nouns of a graph: dtypes, dims, tensor types, and what a node may read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final, Literal, Protocol, Self, cast

DType = Literal["float64", "float32", "bfloat16", "float16", "int32", "uint8", "bool"]


@dataclass(frozen=True, slots=True)
class DTypeFacts:
    """Bytes of a number, the name in a printed graph and the one in safetensors; of floats, what comes next after 1."""

    size: int
    short: str
    stored: str
    epsilon: float = 0.0


DTYPES: Final[Mapping[DType, DTypeFacts]] = {
    "float64": DTypeFacts(8, "f64", "F64", 2.0**-52),
    "float32": DTypeFacts(4, "f32", "F32", 2.0**-23),
    "bfloat16": DTypeFacts(2, "bf16", "BF16", 2.0**-7),
    "float16": DTypeFacts(2, "f16", "F16", 2.0**-10),
    "int32": DTypeFacts(4, "i32", "I32"),
    "uint8": DTypeFacts(1, "u8", "U8"),
    "bool": DTypeFacts(1, "bool", "BOOL"),
}
"""All that is to be known of dtypes; NumPy has those names too, once ml_dtypes is imported."""
FLOATS: Final[tuple[DType, ...]] = tuple(dtype for dtype, facts in DTYPES.items() if facts.epsilon)

Dim = int | str
"""A dim is a number, or a symbolic axis: N new tokens, C context rows, L logits rows; R cache rows, S seats and P
positions, which are bound when a model is compiled."""

Attr = bool | int | float | str | tuple[int, ...] | tuple[str, ...] | tuple[int | str, ...]


def dtype_of(name: str) -> DType:
    """Return `name` as a DType, or raise ValueError."""
    for dtype in DTYPES:
        if dtype == name:
            return dtype
    raise ValueError(f"unknown dtype {name!r}; one of {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dtype and dims; `str()` is `bf16[N, 2560]`."""

    dtype: DType
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{DTYPES[self.dtype].short}[{', '.join(map(str, self.dims))}]"

    def shape(self, bindings: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """The dims as numbers, symbolic ones looked up in `bindings` (KeyError when absent)."""
        known = bindings or {}
        return tuple(d if isinstance(d, int) else known[d] for d in self.dims)

    def elements(self, bindings: Mapping[str, int] | None = None) -> int:
        return math.prod(self.shape(bindings))

    def nbytes(self, bindings: Mapping[str, int] | None = None) -> int:
        return self.elements(bindings) * DTYPES[self.dtype].size

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.dims)

    @property
    def wide(self) -> DType:
        """What is computed in whatever activations are: float32, or float64 where the graph is float64 throughout."""
        return "float64" if self.dtype == "float64" else "float32"


Array = Any
"""A NumPy array; this package does without NumPy."""


class Storage(Protocol):
    """How a weight is stored: its parts and their sizes and, given arrays, how its numbers become parts and back.

    A storage is a frozen dataclass that subclasses this, all in one file; its fields are what JSON says of it. The
    defaults are those of numbers that stand each by itself, in the part `data`. *Rows* are a weight as `[n, *row]`, a
    row being K numbers or, of a weight of gate and up (`paired`), 2 by K.
    """

    kind: ClassVar[str]
    """Its name in JSON."""
    stored: ClassVar[bool] = True
    """Whether a source has it; a weight that nobody stores is computed."""
    packed: ClassVar[bool] = True
    """Whether its parts are no numbers yet. A backend is asked whether it accepts one; else it gets the numbers."""

    @property
    def tile(self) -> int:
        """How many rows lie together: `pack` gets so many, or a multiple, save for the last of a weight."""
        return 1

    @property
    def activation_block(self) -> int | None:
        """How many activations share a scale where they meet it in int8 (`OpNumerics`); None: they are not rounded."""
        return None

    def parts(self, type: TensorType, paired: bool = False) -> dict[str, TensorType]:
        """The stored parts of a logical tensor, by name, in the order in which they are written."""
        return {"data": type}

    def problem(self, type: TensorType, paired: bool = False) -> str | None:
        """Why a tensor cannot be stored so, or None."""
        return None

    def laid_out(self, layout: str) -> Storage:
        """The same numbers with their bytes in another order; itself where it has but one."""
        return self

    def quantize(self, rows: Array, *, search: bool, where: str) -> tuple[Mapping[str, Array], float, float]:
        """The parts of float32 rows, row by row; the squared error, and the sum of squares. `search` takes more time
        for less error. CheckpointError, naming `where`, for numbers that cannot be stored."""
        return {"data": rows}, 0.0, 0.0

    def dequantize(self, parts: Mapping[str, Array]) -> Array:
        """The numbers of parts that are row by row, `[n, *row]`."""
        return parts["data"]

    def pack(self, parts: Mapping[str, Array]) -> Mapping[str, Array]:
        """Parts that are row by row in the order in which they are stored."""
        return parts

    def rows(self, parts: Mapping[str, Array], axes: int, start: int, stop: int) -> Mapping[str, Array]:
        """The reverse, of some rows of a stored weight, whose axes but the last `axes` count as one."""
        flat = {name: part.reshape(-1, *part.shape[part.ndim - axes :]) for name, part in parts.items()}
        return {name: part[start:stop] for name, part in flat.items()}

    def synthesize(self, part: str, mean: float, std: float, quantiles: Array) -> Array:
        """What a random 16-bit word stands for in a part, so that numbers get this mean and standard deviation:
        65,536 values. `quantiles` are those of the standard normal distribution."""
        return mean + std * quantiles

    def compute(self, type: TensorType, out: Array, index: tuple[int, ...], first: int = 0) -> None:
        """Write a weight that nobody stores, or its slice at `index`, into `out`: as many of its rows, from `first` on,
        as that has."""
        raise AssertionError(f"{self} is stored")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind} | {field.name: getattr(self, field.name) for field in fields(cast(Any, self))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` wrote; KeyError, TypeError or ValueError for anything else."""
        return cls(**{name: value for name, value in data.items() if name != "kind"})


@dataclass(frozen=True, slots=True)
class Plain(Storage):
    """The tensor as it is, in one dtype."""

    kind = "plain"
    packed = False

    dtype: DType

    def __post_init__(self) -> None:
        dtype_of(self.dtype)

    def __str__(self) -> str:
        return DTYPES[self.dtype].short

    def parts(self, type: TensorType, paired: bool = False) -> dict[str, TensorType]:
        return {"data": type.with_dtype(self.dtype)}


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

    `type.dtype` is the dtype it takes part in computations as, `storage` how its source keeps it. One that is `paired`
    holds gate and up, `[.., I, 2, K]`.
    """

    name: str
    type: TensorType
    storage: Storage
    paired: bool = False

    def __str__(self) -> str:
        return f"@{self.name}"

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of a row: K, or of gate and up 2 and K."""
        return cast(tuple[int, ...], self.type.dims[-2:] if self.paired else self.type.dims[-1:])

    @property
    def parts(self) -> dict[str, TensorType]:
        """The stored parts by name."""
        return self.storage.parts(self.type, self.paired)

    @property
    def problem(self) -> str | None:
        """Why it cannot be stored so, or None."""
        return self.storage.problem(self.type, self.paired)

    @property
    def plain(self) -> Weight:
        """The same numbers, each by itself, in the dtype of computations where it is packed."""
        return replace(self, storage=Plain(self.type.dtype)) if self.storage.packed else self

    def nbytes(self, bindings: Mapping[str, int] | None = None) -> int:
        """Bytes of all stored parts."""
        return sum(part.nbytes(bindings) for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class State:
    """What a graph keeps from step to step, and how: one layer's K and V rows are logically `[R, 2, K, D]`.

    The first axis is R, cache rows, or S, a row for each seat. The physical layout is the backend's.
    """

    name: str
    type: TensorType
    storage: Storage

    def __str__(self) -> str:
        return f"${self.name}"

    def nbytes(self, bindings: Mapping[str, int] | None = None) -> int:
        """Bytes of all its parts."""
        return sum(part.nbytes(bindings) for part in self.storage.parts(self.type).values())


Operand = Value | Weight | State | None
"""What a node reads; None stands for an optional input that is absent."""
