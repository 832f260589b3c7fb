"""Pictures and videos in a prompt, as the engine sees them: what gives features for some of its tokens."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from ernie_rt.contract.step import StepResult
from ernie_rt.errors import BackendError
from ernie_rt.graph.types import TensorType
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.inputs import Array

PATCHES: Final = "patches"
"""What the graph `vision` takes in."""
FEATURES: Final = "features"
"""What comes out of it, and goes into `main`, behind a row of zeros."""
FEATURES_ROW: Final = "features_row"
"""Which of these rows each token of a step has, 0 where it has none."""


FeaturesKey = tuple[bytes, bytes]
"""A namespace, and the digest of an item."""


class Encodable(Protocol):
    """Whatever becomes features, a row for each of its tokens, in steps of the graph `vision`."""

    @property
    def digest(self) -> bytes:
        """Equal for those alone that have equal features."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens of a prompt it stands for."""
        ...

    def pieces(self, max_patches: int) -> Iterator[dict[str, Array]]:
        """The inputs of one step after the other, `patches [S, ..]` of at most so many rows among them, whose features,
        put together, are its own. PromptError where it cannot be cut so."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PlacedItem:
    """An item and the place in the ids of a prompt at which its tokens begin."""

    start: int
    item: Encodable

    @property
    def stop(self) -> int:
        return self.start + self.item.tokens


class Features:
    """Those of an item, encoded piece by piece, one at a time, and kept in the dtype in which a graph takes them.

    All sequences of a namespace that show equal items share them. `rows [tokens, H]` are there once the last piece is.
    """

    def __init__(self, item: Encodable, namespace: bytes, taken: TensorType, max_patches: int) -> None:
        self.key: FeaturesKey = namespace, item.digest
        self._tokens = item.tokens
        self._taken = taken
        self._pieces = _pieces(item, max_patches)
        self._parts: list[Array] = []
        self._on_its_way = False
        self.rows: Array | None = None

    @property
    def due(self) -> bool:
        """Whether the next piece can be encoded."""
        return self.rows is None and not self._on_its_way

    def next_piece(self) -> dict[str, Array]:
        """What the next step takes in, whose result is to be taken before another one; raises what the item does."""
        piece = next(self._pieces, None)
        if piece is None:
            raise self._other(sum(map(len, self._parts)))
        self._on_its_way = True
        return piece

    def take(self, result: StepResult) -> None:
        """The features of the piece that was encoded; BackendError where they are no such thing."""
        self._on_its_way = False
        rows = result.taps.get(FEATURES)
        if rows is None or rows.ndim != 2 or rows.shape[1:] != self._taken.dims[1:]:
            raise BackendError(
                f"the graph {VISION!r} gives no features",
                expected=str(self._taken),
                found="none" if rows is None else f"{rows.dtype} {list(rows.shape)}",
            )
        self._parts.append(rows.astype(self._taken.dtype))
        total = sum(map(len, self._parts))
        if total > self._tokens:
            raise self._other(total)
        if total == self._tokens:
            self.rows = np.concatenate(self._parts)
            self._parts.clear()
            self._pieces.close()  # and with it the pixels go: what is kept for others is rows alone

    def _other(self, count: int) -> BackendError:
        return BackendError("an item has not as many features as tokens", expected=str(self._tokens), found=str(count))


def _pieces(item: Encodable, max_patches: int) -> Generator[dict[str, Array], None, None]:
    """Cut once they are asked for: whoever asks is told what is wrong."""
    yield from item.pieces(max_patches)
