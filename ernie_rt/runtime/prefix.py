"""Which pages hold the rows of which tokens.

A page's rows follow from its own tokens and all before them, so a page is found by a chain of keys: under that of the
page before it, by its tokens as they are. Nothing is taken for equal by a digest of tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Identity = npt.NDArray[np.void]
"""An item a token, see `SequenceState.identity`."""

LOOKED_AT: Final = 16
"""So many of the pages that begin otherwise are compared, the newest first, to find the one that goes along longest."""


@dataclass(slots=True, eq=False)
class Node:
    """A page and the keys of its tokens, which are fewer than its rows where a sequence ended."""

    page: int
    key: bytes
    parent: Node | None
    children: dict[bytes, Node] = field(default_factory=dict)


class Partly(NamedTuple):
    """A page whose first `rows` hold what was asked for; `whole` when it holds no others."""

    page: int
    rows: int
    whole: bool


class PrefixTree:
    """Pages by what they hold. It knows nothing of who holds them."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._roots: dict[bytes, Node] = {}  # by namespace; they stand for no page
        self._nodes: dict[int, Node] = {}

    def __contains__(self, page: object) -> bool:
        return page in self._nodes

    def find(self, namespace: bytes, identity: Identity) -> tuple[list[int], Partly | None]:
        """The pages that hold the first tokens, whole pages of them, and one that begins with the next ones."""
        root = self._roots.get(namespace)
        pages: list[int] = []
        if root is None:
            return pages, None
        node = root
        for key in self._keys(identity):
            child = node.children.get(key)
            if child is None or len(key) < self._page_size * identity.itemsize:
                return pages, self._longest(node, key, identity.itemsize)
            pages.append(child.page)
            node = child
        return pages, None

    def add(self, namespace: bytes, identity: Identity, pages: list[int]) -> None:
        """Let pages, one after the other, be found by the tokens that they hold; equal ones that are known stay."""
        if not pages:
            return
        node = self._roots.setdefault(namespace, Node(-1, namespace, None))
        for key, page in zip(self._keys(identity), pages, strict=True):
            child = node.children.get(key)
            if child is None:
                known = self._nodes.get(page)
                if known is not None and known.parent is not node:
                    break  # the page is found under another one, which holds the same
                if known is not None:  # it holds more tokens than before
                    del node.children[known.key]
                    known.key = key
                child = known or Node(page, key, node)
                node.children[key] = child
                self._nodes[page] = child
            node = child
        self._forget_root(self._roots[namespace])

    def drop(self, page: int) -> list[int]:
        """Forget a page, and with it those that were found under it; gives them all."""
        below = [self._nodes[page]]
        parent = below[0].parent
        assert parent is not None
        del parent.children[below[0].key]
        self._forget_root(parent)
        for node in below:
            below += node.children.values()
            del self._nodes[node.page]
        return [node.page for node in below]

    def clear(self) -> None:
        """Forget every page."""
        self._roots.clear()
        self._nodes.clear()

    def _forget_root(self, node: Node) -> None:
        if node.parent is None and not node.children:
            del self._roots[node.key]

    def _keys(self, identity: Identity) -> Iterator[bytes]:
        for start in range(0, len(identity), self._page_size):
            yield identity[start : start + self._page_size].tobytes()

    def _longest(self, node: Node, key: bytes, width: int) -> Partly | None:
        """Of the pages after a node the one that begins with most of the next tokens."""
        best: Partly | None = None
        for child in islice(reversed(node.children.values()), LOOKED_AT):
            rows = common(np.frombuffer(child.key, f"V{width}"), np.frombuffer(key, f"V{width}"))
            if rows > (0 if best is None else best.rows):
                best = Partly(child.page, rows, rows * width == len(child.key))
        return best


def common(first: Identity, second: Identity) -> int:
    """How many tokens two sequences have in common at their beginnings."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length
