"""Which pages hold the rows of which tokens.

A page's rows follow from its own tokens and all before them, so a page is found by a chain of keys: under that of the
page before it, by its tokens as they are. Nothing is taken for equal by a digest of tokens alone.

What was computed behind rows of another text (`Request.reuse_after_change`) follows from more than its tokens. It has
chains of its own, each under the place where it begins, which only those are led to who ask for such pages.
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
    namespace: bytes
    place: int
    """The number of the page in its text; of a root that of the first page below it."""
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
        self._roots: dict[tuple[bytes, int], Node] = {}  # by namespace and first place; they stand for no page
        self._nodes: dict[int, Node] = {}
        self._alike: dict[tuple[bytes, int, bytes], dict[int, Node]] = {}  # whole pages by what they hold, and where

    def __contains__(self, page: object) -> bool:
        return page in self._nodes

    def find(self, namespace: bytes, identity: Identity) -> tuple[list[int], Partly | None]:
        """The pages that hold the first tokens, whole pages of them, and one that begins with the next ones."""
        root = self._roots.get((namespace, 0))
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

    def find_anywhere(self, namespace: bytes, identity: Identity, first: int) -> list[tuple[int, list[int]]]:
        """Runs of whole pages, from the page `first` on, that hold these tokens at the same places of whatever text.

        Gives where each run begins, and its pages.
        """
        keys = list(self._keys(identity))[: len(identity) // self._page_size]
        runs: list[tuple[int, list[int]]] = []
        place = first
        while place < len(keys):
            nodes = self._alike.get((namespace, place, keys[place]), {})
            found = max(
                (_along(each, keys) for each in islice(reversed(nodes.values()), LOOKED_AT)), key=len, default=[]
            )
            if runs and found and runs[-1][0] + len(runs[-1][1]) == place:
                runs[-1][1].extend(found)
            elif found:
                runs.append((place, found))
            place += len(found) or 1
        return runs

    def add(self, namespace: bytes, identity: Identity, pages: list[int], first: int = 0) -> None:
        """Let pages, one after the other, be found by the tokens that they hold; equal ones that are known stay.

        They begin with the page `first` of their text; where that is not 0 they were computed behind another text.
        """
        if not pages:
            return
        root = node = self._roots.setdefault((namespace, first), Node(-1, b"", None, namespace, first))
        place = first
        for key, page in zip(self._keys(identity), pages, strict=True):
            child = node.children.get(key)
            if child is None:
                known = self._nodes.get(page)
                if known is not None and known.parent is not node:
                    break  # the page is found under another one, which holds the same
                if known is not None:  # it holds more tokens than before
                    del node.children[known.key]
                    known.key = key
                child = known or Node(page, key, node, namespace, place)
                node.children[key] = child
                self._nodes[page] = child
                if len(key) == self._page_size * identity.itemsize:
                    self._alike.setdefault((namespace, place, key), {})[page] = child
            node = child
            place += 1
        self._forget_root(root)

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
            self._forget_place(node)
        return [node.page for node in below]

    def clear(self) -> None:
        """Forget every page."""
        self._roots.clear()
        self._nodes.clear()
        self._alike.clear()

    def _forget_root(self, node: Node) -> None:
        if node.parent is None and not node.children:
            del self._roots[node.namespace, node.place]

    def _forget_place(self, node: Node) -> None:
        where = node.namespace, node.place, node.key
        there = self._alike.get(where, {})
        if there.pop(node.page, None) is not None and not there:
            del self._alike[where]

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


def _along(node: Node | None, keys: list[bytes]) -> list[int]:
    """The pages from a node on that hold what the keys from its place on say."""
    pages: list[int] = []
    while node is not None:
        pages.append(node.page)
        place = node.place + 1
        node = node.children.get(keys[place]) if place < len(keys) else None
    return pages


def common(first: Identity, second: Identity) -> int:
    """How many tokens two sequences have in common at their beginnings."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length
