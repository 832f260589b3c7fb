"""Pictures and videos in a prompt, as the engine sees them: what gives features for some of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ernie_rt.runtime.inputs import Array


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
        """The inputs of one step after the other, `patches [S, ..]` among them, at most so many of them as far as it
        can be cut. Their features, put together, are its own."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PlacedItem:
    """An item and the place in the ids of a prompt at which its tokens begin."""

    start: int
    item: Encodable

    @property
    def stop(self) -> int:
        return self.start + self.item.tokens
