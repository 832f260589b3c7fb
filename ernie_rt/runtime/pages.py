"""The pages of a cache: which are free, which hold rows worth keeping, and who holds which."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from ernie_rt.runtime.prefix import PrefixTree


class PagePool:
    """Hands out page numbers, the page after a sequence's last one when it is free, else the lowest.

    Neighbouring pages keep a sequence in one run of rows, which an executable may read without gathering. Several
    sequences may hold a page. One that nobody holds any more is idle while the tree of prefixes has it, and free
    otherwise; when no page is free, the one that has been idle longest gives way.
    """

    def __init__(self, pages: int, tree: PrefixTree) -> None:
        self.references = np.zeros(pages, np.int32)
        self._tree = tree
        self._free = set(range(pages))
        self._heap = list(
            range(pages)
        )  # holds every free page once, and some that are no longer free: skipped when met
        self._queued = set(self._heap)
        self._idle: OrderedDict[int, None] = OrderedDict()  # the one that has been idle longest comes first

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def idle(self) -> int:
        return len(self._idle)

    def unheld(self, pages: Iterable[int]) -> int:
        """How many of these pages nobody holds."""
        return sum(page in self._idle for page in pages)

    def take(self, after: int | None = None) -> int:
        """A page of one's own; the caller has made sure that one is free or idle."""
        if not self._free:
            for page in self._tree.drop(next(iter(self._idle))):
                self._release(page)
        page = -1 if after is None else after + 1
        while page not in self._free:
            page = heapq.heappop(self._heap)
            self._queued.remove(page)
        self._free.remove(page)
        self.references[page] = 1
        return page

    def hold(self, page: int) -> None:
        """One more holder of a page that the tree has."""
        self._idle.pop(page, None)
        self.references[page] += 1

    def give_back(self, page: int) -> None:
        """One holder less."""
        self.references[page] -= 1
        assert self.references[page] >= 0
        if self.references[page] == 0:
            self._release(page)

    def forget(self) -> None:
        """Make the idle pages free, and let none be found by what it holds."""
        self._tree.clear()
        for page in list(self._idle):
            self._release(page)

    def _release(self, page: int) -> None:
        """A page that nobody holds becomes idle, or free."""
        if self.references[page]:
            return
        self._idle.pop(page, None)
        if page in self._tree:
            self._idle[page] = None
            return
        self._free.add(page)
        if page not in self._queued:
            self._queued.add(page)
            heapq.heappush(self._heap, page)
