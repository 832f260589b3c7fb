"""Who waits for a seat, and who comes next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from ernie_rt.runtime.sequence import SequenceState


class Waiting:
    """Sequences that wait. Any thread may `add` one; all else is for the thread that has the engine's turn.

    Those that were at work before, and lost their rows, come first. Of the others the lowest `priority` does, and of
    equal ones that of the tenant who has been served least, in the order of arrival for each tenant. Service is counted
    in tokens, prompts and answers alike; a tenant who asked for nothing meanwhile gains no claim by that (virtual token
    counters: Sheng et al., "Fairness in Serving Large Language Models", 2024).
    """

    def __init__(self) -> None:
        self._arrivals: deque[SequenceState] = deque()
        self._again: deque[SequenceState] = deque()
        self._following: list[SequenceState] = []  # whose prompt another sequence is computing
        self._queues: dict[int, dict[str, deque[SequenceState]]] = {}  # by priority and tenant, none empty
        self._asking: Counter[str] = Counter()  # sequences of each tenant that wait or are at work
        self._served: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._arrivals)

    def __iter__(self) -> Iterator[SequenceState]:
        self._settle()
        yield from self._again
        for queues in self._queues.values():
            for queue in queues.values():
                yield from queue
        yield from self._following

    def __contains__(self, sequence: object) -> bool:
        return any(each is sequence for each in self)

    def add(self, sequence: SequenceState) -> None:
        """At the end of a queue."""
        self._arrivals.append(sequence)

    def add_again(self, sequence: SequenceState) -> None:
        """One that lost its rows, before all others."""
        self._again.appendleft(sequence)
        self._count += 1

    def first(self) -> SequenceState | None:
        """Who comes next; None where nobody waits, or all wait for others."""
        self._settle()
        if self._again:
            return self._again[0]
        if not self._queues:
            return None
        queues = self._queues[min(self._queues)]
        tenant = min(queues, key=lambda tenant: self._served.get(tenant, 0))
        return queues[tenant][0]

    def remove(self, sequence: SequenceState) -> None:
        """It waits no longer."""
        self._settle()
        self._count -= 1
        if sequence in self._again:
            self._again.remove(sequence)
        elif sequence in self._following:
            self._following.remove(sequence)
        else:
            request = sequence.request
            queues = self._queues[request.priority]
            queues[request.tenant].remove(sequence)
            if not queues[request.tenant]:
                del queues[request.tenant]
            if not queues:
                del self._queues[request.priority]

    def serve(self, sequence: SequenceState, tokens: int) -> None:
        """Count so many tokens for a sequence's tenant."""
        tenant = sequence.request.tenant
        self._served[tenant] = self._served.get(tenant, 0) + tokens

    def leave(self, sequence: SequenceState) -> None:
        """A sequence has ended."""
        self._asking -= Counter([sequence.request.tenant])
        if not self._asking:
            self._served.clear()

    def _settle(self) -> None:
        while self._arrivals:
            sequence = self._arrivals.popleft()
            self._count += 1
            self._arrive(sequence.request.tenant)
            self._queue(sequence)
        if self._following:
            following, self._following = self._following, []
            for sequence in following:
                self._queue(sequence)

    def _arrive(self, tenant: str) -> None:
        """One more sequence of a tenant, who begins with the least served of the others if they asked for nothing."""
        if self._asking and tenant not in self._asking:
            least = min(self._served.get(other, 0) for other in self._asking)
            self._served[tenant] = max(self._served.get(tenant, 0), least)
        self._asking[tenant] += 1

    def _queue(self, sequence: SequenceState) -> None:
        request = sequence.request
        if request.like is not None and not request.like.shareable:
            self._following.append(sequence)
        else:
            self._queues.setdefault(request.priority, {}).setdefault(request.tenant, deque()).append(sequence)
