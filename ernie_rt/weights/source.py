"""Where a backend gets the numbers of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import Any, Final, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from ernie_rt.errors import BackendError, GraphError
from ernie_rt.files import MIB, Progress
from ernie_rt.graph.types import DTYPES, FLOATS, DType, Plain, Storage, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.digests import are_still, fingerprint
from ernie_rt.weights.expressions import (
    Concat,
    Expression,
    Interleaved,
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
from ernie_rt.weights.recipes import STORED_HEAD, dialect_of, recipe, tower_in
from ernie_rt.weights.safetensors import NUMPY_DTYPE
from ernie_rt.weights.stamps import Stamps

Array = np.ndarray[Any, np.dtype[Any]]
Index = tuple[int | slice | EllipsisType, ...]

TILE: Final = 256
"""Side of the squares in which a transpose is copied: 2 to 6 times as fast as NumPy's order, which misses the cache."""

COMPARED_AT_ONCE: Final = 16 * MIB

HEAD_APART: Final = "the stored head is used: it differs from the embedding, to which config.json ties it"

STORED_AS: Final[Mapping[str, DType]] = {DTYPES[dtype].stored: dtype for dtype in FLOATS} | {"U16": "bfloat16"}


@runtime_checkable
class WeightSource(Protocol):
    """Fills buffers that a backend owns with the numbers of weights. Threads may fill different buffers at once."""

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        """Write one stored part of `weight`, or its slice at leading indices `index`, into `out`, converting.

        `out` is any writable array of the part's shape, strided as it likes: of floats, of integers of the part's own
        dtype. That of a weight that is computed may have any number of rows. Allocates little beside it, and lets the
        file pages go that were read.
        """
        ...

    def close(self) -> None:
        """Let go of files; `fill` must not be called any more."""
        ...


@runtime_checkable
class Fingerprinted(WeightSource, Protocol):
    """A source that can be told from any other that gives other numbers."""

    def fingerprint(self, progress: Progress | None = None) -> str:
        """A text that belongs to the numbers alone: what they are called has no part in it.

        It may take as long as reading them all: `progress` is told how far that is.
        """
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


@runtime_checkable
class StoredSource(Fingerprinted, Protocol):
    """A source that knows, before a number is read, what it has and how. Its fingerprint is a digest of every byte that
    it is made of."""

    @property
    def storages(self) -> Mapping[str, Storage]:
        """How it stores each weight."""
        ...

    @property
    def unused(self) -> Sequence[tuple[str, str]]:
        """What it has beside the weights of the graph, each with the reason why that is not read."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """In what its files disagree, without harm, for people to read."""
        ...

    def is_still(self, fingerprint: str) -> bool:
        """Whether nobody has changed it since it was opened and had this fingerprint."""
        ...


def storages_of(source: WeightSource) -> Mapping[str, Storage]:
    """How a source stores its weights, as far as it says so."""
    return source.storages if isinstance(source, StoredSource) else {}


class CheckpointSource:
    """The weights of a checkpoint, which it then owns. Building it checks all names, shapes and dtypes.

    A weight that is made of tensors of several dtypes counts as float32.
    """

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, *, reread: bool = False) -> None:
        """To `reread` is to believe no remembered digest. Raises CheckpointError; whose the checkpoint is, it stays."""
        self._checkpoint = checkpoint
        self._stamps = None if reread else Stamps.of_user()
        dialect = dialect_of(checkpoint.tensors.keys(), str(checkpoint.folder))
        tower = tower_in(checkpoint.names)
        if tower is None:
            config = config.text_alone
        self._recipe = recipe(config, dialect, tower=tower)
        apart = False
        if config.tie_word_embeddings and STORED_HEAD in checkpoint.tensors:
            (embedding,) = stored_in(self._recipe.weights["embed.weight"])
            if embedding.name not in checkpoint.tensors:
                checkpoint.check_shards([embedding.name])
                self._recipe = recipe(config, dialect, head_alone=True, tower=tower)
            elif apart := self._differ(STORED_HEAD, embedding.name):
                self._recipe = recipe(replace(config, tie_word_embeddings=False), dialect, tower=tower)
        checkpoint.check_shards(stored.name for made in self._recipe.weights.values() for stored in stored_in(made))
        self.unused = self._recipe.check(checkpoint.tensors, str(checkpoint.folder))
        self.notes = (*checkpoint.notes, *([HEAD_APART] if apart else []))
        self.storages = {name: self._storage(made) for name, made in self._recipe.weights.items()}

    def fingerprint(self, progress: Progress | None = None) -> str:
        """Of every byte of the files, which are hashed unless that is remembered (`stamps`)."""
        return fingerprint(self._checkpoint.files, self._stamps, progress)

    def is_still(self, fingerprint: str) -> bool:
        return are_still(self._checkpoint.files, fingerprint, self._stamps)

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if computed(weight, part, out, index):
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

    def _differ(self, head: str, embedding: str) -> bool:
        """Whether two tensors, one perhaps transposed, have other bytes; read up to the first difference."""
        ours, theirs = (self._checkpoint.tensors[name] for name in (head, embedding))
        if ours.dtype != theirs.dtype or ours.dtype not in NUMPY_DTYPE:
            return True
        if ours.shape not in (theirs.shape, theirs.shape[::-1]):
            return True
        left, right = (_bits(self._checkpoint.array(name)) for name in (head, embedding))
        left = left if left.shape == right.shape else left.T
        rows = range(0, len(right), max(1, COMPARED_AT_ONCE * len(right) // max(right.nbytes, 1)))
        differ = any(not np.array_equal(left[at : at + rows.step], right[at : at + rows.step]) for at in rows)
        for name in (head, embedding):
            self._checkpoint.release(name)
        return differ

    def _storage(self, expression: Expression) -> Storage:
        found = {STORED_AS[self._checkpoint.tensors[each.name].dtype] for each in stored_in(expression)}
        return Plain(found.pop() if len(found) == 1 else "float32")

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
            case Interleaved(source, groups):
                halves = self._view(source).reshape(groups, 2, -1, *out.shape[1:])
                np.copyto(out.reshape(groups, -1, 2, *out.shape[1:]).swapaxes(1, 2), halves, casting="unsafe")
                for stored in stored_in(expression):
                    self._checkpoint.release(stored.name)
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


def _bits(array: Array) -> Array:
    """The same bytes as unsigned integers, of which none differs from itself."""
    return array.view(f"<u{array.itemsize}")


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


def computed(weight: Weight, part: str, out: Array, index: tuple[int, ...]) -> bool:
    """Check a request, and meet it where nobody stores the weight; whether that was so.

    Raises BackendError unless `out` fits the slice at `index` of the part.
    """
    parts = weight.parts
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
    if not weight.storage.stored:
        weight.storage.compute(weight.type, out, index)
    return not weight.storage.stored
