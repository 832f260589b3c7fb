"""Compose steps: which sequences bring how many tokens, within what an executable admits.

A sequence that brings one token is a decode, one that brings more a prefill. Decodes come first in a mixed step, then
prefills in the order of arrival. Pages for a whole prompt are taken when a sequence is admitted and one at a time after
that; when none is left, the sequence admitted last gives back all of its own and waits to be computed anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ernie_rt.backend.protocols import CacheShape, StepLimits
from ernie_rt.backend.step import LAST_SAMPLED, Step
from ernie_rt.runtime.pages import PagePool
from ernie_rt.runtime.sequence import Finish, Sequence


@dataclass(frozen=True, slots=True)
class Part:
    """What one sequence brings to a step: `new` tokens, and how many logits rows it is owed."""

    sequence: Sequence
    new: int
    rows: int
    samples: bool

    @property
    def wants_logits(self) -> bool:
        request = self.sequence.request
        return request.all_logits or (self.samples and not request.sampling.plain)


@dataclass(frozen=True, slots=True)
class Move:
    """Rows to copy from one slot to another, so that the slots at work stay without a gap."""

    source: int
    destination: int
    length: int


class Scheduler:
    """Sequences waiting and running, and the seats and pages they hold."""

    def __init__(self, cache: CacheShape, admits: StepLimits) -> None:
        self.cache = cache
        self.admits = admits
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order of admission
        self._pages = PagePool(cache.pages)
        # No more sequences than tokens in a step, so that every decode has its place in each.
        self._seats = list(range(min(admits.max_sequences, admits.max_tokens) - 1, -1, -1))

    @property
    def capacity(self) -> int:
        """The most rows that one sequence can have."""
        return self.cache.page_size * (1 if self.cache.kind == "slots" else self.cache.pages)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    @property
    def busy(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.waiting or self.running)

    def close(self) -> list[Sequence]:
        """Let every sequence go, without giving anything back."""
        left = [*self.running, *self.waiting]
        self.running.clear()
        self.waiting.clear()
        return left

    def compose(self) -> tuple[Part, ...]:
        """The parts of the next step, empty when no sequence has a token ready. Takes the pages that they need."""
        self._admit()
        wanted = {sequence: self._wants(sequence) for sequence in self.running}
        decodes = [sequence for sequence, tokens in wanted.items() if tokens == 1]
        prefills = [sequence for sequence, tokens in wanted.items() if tokens > 1]
        mixed = self.admits.mixed
        if self.cache.kind == "slots" and not mixed:
            # One whose last token is on its way has none to bring: those above its slot wait until it is gone.
            decodes.sort(key=lambda sequence: sequence.pages[0])
            decodes = [sequence for place, sequence in enumerate(decodes) if sequence.pages[0] == place]
        parts: list[Part] = []
        budget = self.admits.max_tokens
        room = len(prefills) if self.admits.max_prefills is None else self.admits.max_prefills
        held: set[Sequence] = set()
        for sequence in decodes + prefills if mixed else prefills or decodes:
            new = min(wanted[sequence], budget)
            prefill = wanted[sequence] > 1
            if new < (1 if mixed or not prefill else 2) or (prefill and room < 1):
                continue
            if sequence in held or sequence not in self.running:
                continue
            if not self._reserve(sequence, sequence.cached + new):
                held.add(self.running[-1])  # it can give way once its tokens are known, so it takes no more now
                continue
            samples = sequence.samples_after(new)
            parts.append(Part(sequence, new, new if sequence.request.all_logits else int(samples), samples))
            budget -= new
            room -= prefill
        return tuple(parts)

    def release(self, sequence: Sequence, finish: Finish) -> Move | None:
        """End a sequence and take back what it holds. Returns the copy to make when that leaves a gap among slots."""
        sequence.finish = finish
        if sequence not in self.running:
            self.waiting.remove(sequence)
            return None
        return self._vacate(sequence)

    def _admit(self) -> None:
        while self.waiting and self._seats:
            sequence = self.waiting[0]
            if self._pages_for(sequence.total) > len(self._pages):
                return
            self.waiting.popleft()
            sequence.seat = self._seats.pop()
            self._grow(sequence, self._pages_for(sequence.total))
            self.running.append(sequence)

    def _wants(self, sequence: Sequence) -> int:
        """How many tokens a sequence would bring to a step of its own."""
        return min(sequence.ready, sequence.request.chunk or sequence.ready, self.admits.max_tokens)

    def _pages_for(self, rows: int) -> int:
        return -(-rows // self.cache.page_size)

    def _grow(self, sequence: Sequence, pages: int) -> None:
        while len(sequence.pages) < pages:
            sequence.pages.append(self._pages.take(sequence.pages[-1] if sequence.pages else None))

    def _reserve(self, sequence: Sequence, rows: int) -> bool:
        """Make sure of the pages for `rows`; preempt from the back when there are none. False: not in this step."""
        missing = self._pages_for(rows) - len(sequence.pages)
        while missing > len(self._pages):
            victim = self.running[-1]
            if victim is sequence or victim.unread:
                return False
            self._preempt(victim)
        self._grow(sequence, self._pages_for(rows))
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._vacate(sequence)
        sequence.cached = 0
        sequence.logits.clear()
        sequence.taps.clear()
        self.waiting.appendleft(sequence)

    def _vacate(self, sequence: Sequence) -> Move | None:
        self.running.remove(sequence)
        self._seats.append(sequence.seat)
        self._pages.give_back(sequence.pages)
        pages, sequence.pages = sequence.pages, []
        if self.cache.kind == "slots":
            last = max(self.running, key=lambda s: s.pages[0], default=None)
            if last is not None and last.pages[0] > pages[0]:
                move = Move(last.pages[0], pages[0], last.cached)
                self._pages.give_back(last.pages)
                last.pages = [self._pages.take(pages[0] - 1)]
                return move
        return None


def make_step(parts: tuple[Part, ...], page_size: int) -> Step:
    """The arrays of a step, from the state of its sequences before it."""
    sequences = [part.sequence for part in parts]
    ids = np.concatenate([_next_ids(part) for part in parts])
    query_start = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([part.new for part in parts], out=query_start[1:])
    tables = np.full((len(parts), max(len(s.pages) for s in sequences)), -1, np.int32)
    for row, sequence in zip(tables, sequences, strict=True):
        row[: len(sequence.pages)] = sequence.pages
    rows = [
        np.arange(end - part.rows, end, dtype=np.int32) for part, end in zip(parts, query_start[1:], strict=True)
    ]  # a part is owed logits of its last tokens: all of them, one, or none
    return Step(
        ids=ids,
        query_start=query_start,
        past=np.array([s.cached for s in sequences], np.int32),
        tables=tables,
        page_size=page_size,
        seats=np.array([s.seat for s in sequences], np.int32),
        rows=np.concatenate(rows),
        want_logits=any(part.wants_logits for part in parts),
    )


def _next_ids(part: Part) -> np.ndarray:
    sequence = part.sequence
    known = sequence.tokens[sequence.cached : sequence.cached + part.new]
    return np.array(known + [LAST_SAMPLED] * (part.new - len(known)), np.int32)
