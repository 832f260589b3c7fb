"""Who waits for a seat, and who comes next."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping

from ernie_rt.runtime.sequence import SequenceState

Queue = OrderedDict[SequenceState, None]
"""Sequences in their order, of which any can leave at once."""


class Waiting:
    """Sequences that wait. Any thread may `add` one; all else is for the thread that has the engine's turn.

    The lowest `priority` comes first. Of equal ones those do that were at work before, and lost their rows, then that
    of the tenant who has been served least, in the order of arrival for each tenant. Service is counted in tokens,
    prompts and answers alike; a tenant who asked for nothing meanwhile gains no claim by that (virtual token counters:
    Sheng et al., "Fairness in Serving Large Language Models", 2024). Nothing here takes longer the more sequences wait.
    """

    def __init__(self) -> None:
        self._arrivals: deque[SequenceState] = deque()
        self._following: dict[SequenceState | None, Queue] = {}  # by the sequence that computes their prompt
        self.aside = Queue()
        """Those that wait for features, and for no seat before they have them; the next to be served first."""
        self._ranks: dict[int, _Rank] = {}  # by priority, none empty
        self._asking: Counter[str] = Counter()  # sequences of each tenant that wait or are at work
        self._served: dict[str, int] = {}  # of those who ask, and of others who were served more than these
        self._tenants = _LeastServed(self._served)
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._arrivals)

    def __iter__(self) -> Iterator[SequenceState]:
        self._settle()
        for rank in self._ranks.values():
            yield from rank
        for queue in (self.aside, *self._following.values()):
            yield from queue

    def add(self, sequence: SequenceState) -> None:
        """At the end of a queue."""
        self._arrivals.append(sequence)

    def add_again(self, sequence: SequenceState) -> None:
        """One that lost its rows, before all others of its priority."""
        _put_first(sequence, self._rank(sequence).again)
        self._count += 1

    def put_aside(self, sequence: SequenceState) -> None:
        """It lacks features: it waits for those."""
        self._take(sequence)
        self.aside[sequence] = None

    def resume(self, sequence: SequenceState) -> None:
        """It lacks none any more, and comes before all others of its priority: it was the first of them."""
        self._take(sequence)
        _put_first(sequence, self._rank(sequence).again)

    def first(self) -> SequenceState | None:
        """Who comes next; None where nobody waits, or all wait for others."""
        self._settle()
        return self._ranks[min(self._ranks)].first() if self._ranks else None

    def remove(self, sequence: SequenceState) -> None:
        """It waits no longer."""
        self._settle()
        self._count -= 1
        self._take(sequence)

    def share(self, sequence: SequenceState) -> None:
        """The rows of a sequence's prompt are there, or never will be: those that wait for them go on, before others of
        their tenant, as they came together."""
        for follower in reversed(self._following.pop(sequence, ())):
            _put_first(follower, self._rank(follower).queue(follower.request.tenant))

    def serve(self, sequence: SequenceState, tokens: int) -> None:
        """Count so many tokens for a sequence's tenant; it must have been at work, or have been removed."""
        self._served[sequence.request.tenant] += tokens

    def leave(self, sequence: SequenceState) -> None:
        """A sequence has ended."""
        self.share(sequence)
        tenant = sequence.request.tenant
        self._asking[tenant] -= 1
        if not self._asking[tenant]:
            del self._asking[tenant]
            self._least()

    def _settle(self) -> None:
        while self._arrivals:
            self._count += 1  # before it goes: who counts meanwhile must not miss it
            sequence = self._arrivals.popleft()
            request = sequence.request
            self._arrive(request.tenant)
            if request.like is not None and not request.like.shareable:
                self._following.setdefault(request.like, Queue())[sequence] = None
            else:
                self._rank(sequence).queue(request.tenant)[sequence] = None

    def _take(self, sequence: SequenceState) -> None:
        """Out of the queue in which it is."""
        request = sequence.request
        for queue in (self.aside, self._following.get(request.like, self.aside)):
            if sequence in queue:
                del queue[sequence]
                return
        self._ranks[request.priority].remove(sequence)
        if not self._ranks[request.priority]:
            del self._ranks[request.priority]

    def _arrive(self, tenant: str) -> None:
        """One more sequence of a tenant, who begins with the least served of the others if they asked for nothing."""
        if tenant not in self._asking:
            least = self._least()
            if tenant not in self._served:
                self._served[tenant] = least
                self._tenants.add(tenant)
        self._asking[tenant] += 1

    def _least(self) -> int:
        """What the least served of those who ask has had. Who asks for nothing, and had no more, is forgotten."""
        while (tenant := self._tenants.first()) is not None and tenant not in self._asking:
            self._tenants.remove_first()
            del self._served[tenant]
        return 0 if tenant is None else self._served[tenant]

    def _rank(self, sequence: SequenceState) -> _Rank:
        priority = sequence.request.priority
        if priority not in self._ranks:
            self._ranks[priority] = _Rank(self._served)
        return self._ranks[priority]


class _Rank:
    """The sequences of one priority: `again` those that lost their rows, and a queue for each tenant."""

    def __init__(self, served: Mapping[str, int]) -> None:
        self.again = Queue()
        self._queues: dict[str, Queue] = {}  # of the tenants in `_tenants`
        self._tenants = _LeastServed(served)

    def __bool__(self) -> bool:
        return self.first() is not None

    def __iter__(self) -> Iterator[SequenceState]:
        return itertools.chain(self.again, *self._queues.values())

    def queue(self, tenant: str) -> Queue:
        if tenant not in self._queues:
            self._queues[tenant] = Queue()
            self._tenants.add(tenant)
        return self._queues[tenant]

    def first(self) -> SequenceState | None:
        if self.again:
            return next(iter(self.again))
        while (tenant := self._tenants.first()) is not None:
            if self._queues[tenant]:
                return next(iter(self._queues[tenant]))
            self._tenants.remove_first()
            del self._queues[tenant]
        return None

    def remove(self, sequence: SequenceState) -> None:
        del (self.again if sequence in self.again else self._queues[sequence.request.tenant])[sequence]


class _LeastServed:
    """Tenants, of whom the one that was served least is found, of equal ones the one that was there first.

    What a tenant was served only grows. So the heap holds what it once was, and is put right where that is the least.
    """

    def __init__(self, served: Mapping[str, int]) -> None:
        self._served = served
        self._heap: list[tuple[int, int, str]] = []
        self._numbers = itertools.count()

    def add(self, tenant: str) -> None:
        heapq.heappush(self._heap, self._now(tenant))

    def first(self) -> str | None:
        while self._heap:
            known, _, tenant = self._heap[0]
            if known >= self._served.get(tenant, 0):
                return tenant
            heapq.heapreplace(self._heap, self._now(tenant))
        return None

    def remove_first(self) -> None:
        heapq.heappop(self._heap)

    def _now(self, tenant: str) -> tuple[int, int, str]:
        return self._served.get(tenant, 0), next(self._numbers), tenant


def _put_first(sequence: SequenceState, queue: Queue) -> None:
    queue[sequence] = None
    queue.move_to_end(sequence, last=False)
