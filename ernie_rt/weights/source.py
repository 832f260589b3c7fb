"""Where a backend gets the numbers of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, Final, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from ernie_rt.errors import BackendError, GraphError
from ernie_rt.files import Progress
from ernie_rt.graph.types import DType, RopeTable, Weight
from ernie_rt.model.config import ModelConfig
from ernie_rt.model.rope import rope_table
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.digests import fingerprint
from ernie_rt.weights.expressions import (
    Concat,
    Expression,
    Item,
    Rows,
    Stack,
    Stored,
    Transposed,
    View,
    at,
    shape_of,
    stored_in,
)
from ernie_rt.weights.recipes import dialect_of, recipe
from ernie_rt.weights.stamps import Stamps

Array = np.ndarray[Any, np.dtype[Any]]
Index = tuple[int | slice | EllipsisType, ...]

TILE: Final = 256
"""Side of the squares in which a transpose is copied: 2 to 6 times as fast as NumPy's order, which misses the cache."""

STORED_AS: Final[Mapping[str, DType]] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "U16": "bfloat16",
}


class WeightSource(Protocol):
    """Fills buffers that a backend owns with the numbers of weights. Threads may fill different buffers at once."""

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        """Write one stored part of `weight`, or its slice at leading indices `index`, into `out`, converting.

        `out` is any writable array of the part's shape, strided as it likes: of floats, of the codes of Blocks uint8. A
        RopeTable's `out` may have any number of rows. Allocates little beside it, and lets the file pages go that were
        read.
        """
        ...

    def close(self) -> None:
        """Let go of files; `fill` must not be called any more."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes lie: in this file, from `offset` on, `nbytes` of them."""

    path: Path
    offset: int
    nbytes: int


@runtime_checkable
class PlacedSource(WeightSource, Protocol):
    """A source some of whose parts lie in files just as a backend would fill them."""

    def place(self, weight: Weight, part: str) -> Place | None:
        """Where a stored part of `weight` lies, for a backend that maps files itself; None: it has to be filled."""
        ...


class CheckpointSource:
    """The weights of a checkpoint, which it then owns. Building it checks all names, shapes and dtypes."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig) -> None:
        """Raises CheckpointError, having closed the checkpoint."""
        self._checkpoint = checkpoint
        try:
            self._recipe = recipe(config, dialect_of(checkpoint.tensors.keys(), str(checkpoint.folder)))
            self._unused = self._recipe.check(checkpoint.tensors, str(checkpoint.folder))
        except BaseException:
            checkpoint.close()
            raise

    @property
    def unused(self) -> list[tuple[str, str]]:
        """Stored tensors that no graph reads, each with the reason."""
        return list(self._unused)

    def stored_dtype(self, name: str) -> DType:
        """The dtype of a weight in the checkpoint; float32 where it is made of tensors of several."""
        stored = {self._checkpoint.tensors[each.name].dtype for each in stored_in(self._recipe.weights[name])}
        found = {STORED_AS[dtype] for dtype in stored}
        return found.pop() if len(found) == 1 else "float32"

    def fingerprint(self, progress: Progress | None = None) -> str:
        """A digest of every byte of the files, which are hashed unless that is remembered (`stamps`)."""
        return fingerprint(self._checkpoint.files, Stamps.of_user(), progress)

    def is_still(self, fingerprint: str) -> bool:
        """Whether the files are those of a fingerprint that was taken since they were opened."""
        return all(file.is_untouched() for file in self._checkpoint.files.values()) or self.fingerprint() == fingerprint

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        check_request(weight, part, out, index)
        if isinstance(weight.storage, RopeTable):
            fill_rope(weight, weight.storage, out, index)
            return
        expression = self._recipe.weights.get(weight.name)
        if expression is None:
            raise GraphError(f"the checkpoint's recipe has no weight {weight.name!r}", found=weight.type)
        for i in index:
            expression = at(expression, i)
        if shape_of(expression) != out.shape:
            raise GraphError(
                f"weight {weight.name!r} has another shape than its graph says",
                expected=list(out.shape),
                found=list(shape_of(expression)),
            )
        self._write(expression, out)

    def close(self) -> None:
        self._checkpoint.close()

    def _write(self, expression: Expression, out: Array) -> None:
        match expression:
            case Stack(parts, axis):
                slots = np.moveaxis(out, axis, 0)
                for i, part in enumerate(parts):
                    self._write(part, slots[i, ...])
            case Concat(parts):
                start = 0
                for part in parts:
                    stop = start + shape_of(part)[0]
                    self._write(part, out[start:stop])
                    start = stop
            case _:
                copy(self._view(expression), out)
                for stored in stored_in(expression):
                    self._checkpoint.release(stored.name)

    def _view(self, view: View) -> Array:
        match view:
            case Stored(name):
                array = self._checkpoint.array(name)
                # NumPy has no bfloat16, so Paddle's files may hold its bits; the recipe let uint16 pass there alone.
                return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array
            case Transposed(source):
                return self._view(source).T
            case Rows(source, start, stop):
                return self._view(source)[start:stop]
            case Item(source, index):
                return self._view(source)[index, ...]


def copy(source: Array, out: Array) -> None:
    """Copy and convert, without a temporary; a transpose goes in squares."""
    if source.ndim == 2 and np.argmin(source.strides) != np.argmin(out.strides):
        for square in _squares(*source.shape):
            np.copyto(out[square], source[square], casting="unsafe")
    else:
        np.copyto(out, source, casting="unsafe")


def _squares(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, rows, TILE):
        for column in range(0, columns, TILE):
            yield slice(row, row + TILE), slice(column, column + TILE)


def pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[Index, int, int]]:
    """Cut an array into pieces of at most `most` elements in C order: each one's index, first element and size."""
    axis, inner = len(shape), 1  # axes from `axis` on are taken whole; they hold `inner` elements
    while axis > 0 and inner * shape[axis - 1] <= most:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield (...,), 0, inner
        return
    rows, step = shape[axis - 1], most // inner
    for n, outer in enumerate(np.ndindex(*shape[: axis - 1])):
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            yield (*outer, slice(start, stop)), (n * rows + start) * inner, (stop - start) * inner


def check_request(weight: Weight, part: str, out: Array, index: tuple[int, ...]) -> None:
    """Raise BackendError unless `out` fits the slice at `index` of the part."""
    parts = weight.storage.parts(weight.type)
    if part not in parts:
        raise BackendError(f"weight {weight.name!r} has no part {part!r}", expected=", ".join(parts))
    dims = parts[part].dims
    if (
        len(index) > len(dims)
        or not all(i >= 0 and (isinstance(d, str) or i < d) for i, d in zip(index, dims, strict=False))
        or out.ndim != len(dims) - len(index)
        or not all(isinstance(d, str) or d == n for d, n in zip(dims[len(index) :], out.shape, strict=True))
    ):
        raise BackendError(
            f"the buffer does not fit weight {weight.name!r} at index {index}",
            expected=list(dims[len(index) :]),
            found=list(out.shape),
        )


def fill_rope(weight: Weight, table: RopeTable, out: Array, index: tuple[int, ...]) -> None:
    """Compute a cos or sin table, or the slice of it at `index`, into `out`."""
    columns = weight.type.dims[1]
    assert isinstance(columns, int), "a rope table's columns are D/2"
    rows = index[0] + 1 if index else out.shape[0]
    np.copyto(out, rope_table(table, rows, columns)[index], casting="unsafe")
