"""The pages of a cache: which are free, and handing them out."""

from __future__ import annotations

import heapq


class PagePool:
    """Hands out page numbers, the page after a sequence's last one when it is free, else the lowest.

    Neighbouring pages keep a sequence in one run of rows, which an executable may read without gathering.
    """

    def __init__(self, pages: int) -> None:
        self._free = set(range(pages))
        self._heap = list(
            range(pages)
        )  # holds every free page once, and some that are no longer free: skipped when met
        self._queued = set(self._heap)

    def __len__(self) -> int:
        return len(self._free)

    def take(self, after: int | None = None) -> int:
        """One free page; the caller has made sure that there is one."""
        page = -1 if after is None else after + 1
        while page not in self._free:
            page = heapq.heappop(self._heap)
            self._queued.remove(page)
        self._free.remove(page)
        return page

    def give_back(self, pages: list[int]) -> None:
        for page in pages:
            assert page not in self._free
            self._free.add(page)
            if page not in self._queued:
                self._queued.add(page)
                heapq.heappush(self._heap, page)
