"""Expressions over stored tensors: how a recipe says what a graph weight is made of.

A `View` shows a part of one stored tensor without copying; `Stack` and `Concat` join views and `Interleaved` reorders
one. They are never evaluated as a whole: whoever fills a weight writes each view into its slice of the destination.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the checkpoint, and the shape it must have there."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transposed:
    """A matrix `[in, out]` as `[out, in]`."""

    source: View


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of the first axis."""

    source: View
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the first axis, without that axis."""

    source: View
    index: int


View = Stored | Transposed | Rows | Item


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Of each of `groups` runs of n rows the two halves by turns: rows i and i + n/2 of a run come together.

    So a head whose frequencies turn the elements i and i + D/2 becomes one whose neighbours turn.
    """

    source: View
    groups: int

    def row(self, index: int) -> int:
        """Which row of the source comes at `index`."""
        size = shape_of(self.source)[0] // self.groups
        group, place = divmod(index, size)
        pair, half = divmod(place, 2)
        return group * size + half * (size // 2) + pair


@dataclass(frozen=True, slots=True)
class Concat:
    """Parts one after the other along the first axis."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Parts of one shape along a new axis."""

    parts: tuple[Expression, ...]
    axis: int


Expression = View | Interleaved | Concat | Stack


def shape_of(expression: Expression) -> tuple[int, ...]:
    """The logical shape."""
    match expression:
        case Stored(shape=shape):
            return shape
        case Transposed(source):
            return shape_of(source)[::-1]
        case Rows(source, start, stop):
            return (stop - start, *shape_of(source)[1:])
        case Item(source):
            return shape_of(source)[1:]
        case Interleaved(source):
            return shape_of(source)
        case Concat(parts):
            return (sum(shape_of(part)[0] for part in parts), *shape_of(parts[0])[1:])
        case Stack(parts, axis):
            shape = shape_of(parts[0])
            return (*shape[:axis], len(parts), *shape[axis:])


def at(expression: Expression, index: int) -> Expression:
    """The expression of `expression[index]`, which reads that slice alone."""
    match expression:
        case Stack(parts, 0):
            return parts[index]
        case Stack(parts, axis):
            return Stack(tuple(at(part, index) for part in parts), axis - 1)
        case Concat(parts):
            for part in parts:
                rows = shape_of(part)[0]
                if index < rows:
                    return at(part, index)
                index -= rows
            raise IndexError(index)
        case Interleaved(source):
            return Item(source, expression.row(index))
        case _:
            return Item(expression, index)


def stored_in(expression: Expression) -> Iterator[Stored]:
    """Each stored tensor that the expression reads, as often as it reads it."""
    match expression:
        case Stored():
            yield expression
        case Concat(parts) | Stack(parts):
            for part in parts:
                yield from stored_in(part)
        case _:
            yield from stored_in(expression.source)
