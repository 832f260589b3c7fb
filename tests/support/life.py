"""Whatever comes, in whatever order, to an engine of some kind: for tests that let it live, and look at its books."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.errors import PromptError
from ernie_rt.runtime import rows, slots
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.kept_rows import KeptRows
from ernie_rt.runtime.prefix import common
from ernie_rt.runtime.row_store import RowStore
from ernie_rt.runtime.rows import PagedRows
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.runtime.slots import SlotRows
from ernie_rt.sampling.params import GREEDY, SamplingParams
from support.seeing import FRAME, PLACEHOLDER, SeeingToyExecutable, Sketch, graphs, said
from support.toy import VOCAB, DeepToyExecutable, answer

PAGE = 4
CONTEXT = 60
STEPS = 6000


@contextmanager
def little_is_copied() -> Iterator[None]:
    """Rows behind a change are taken from a page of `PAGE` tokens on."""
    with patch.object(rows, "LEAST_ANYWHERE", PAGE), patch.object(slots, "LEAST_ANYWHERE", PAGE):
        yield


class Life:
    """An engine of some kind, what is asked of it, and what goes wrong meanwhile."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        paged, seats = chance.random() < 0.6, chance.choice([2, 3, 5])
        drafts = paged and chance.random() < 0.4
        if paged:
            cache = CacheShape("paged", PAGE, chance.choice([8, 12, 20, 40]))
        else:
            cache = CacheShape("slots", 64, seats + chance.choice([0, 2]))
        mixed, most = paged and chance.random() < 0.5, None if paged else 1
        admits = StepLimits(chance.choice([16, 6]), seats, mixed=mixed, max_prefills=most, max_drafts=3 * drafts)
        self.sees = chance.random() < 0.5
        toy = SeeingToyExecutable if self.sees else DeepToyExecutable
        self.executable = toy(cache, admits, ahead=chance.choice([0, 1]))
        self.records = folder / "cache"
        kept = None
        if chance.random() < 0.6:
            store = RowStore(self.records, chance.choice([2000, 1 << 20]))
            kept = KeptRows(store, b"", self.executable, 8, chunk=8)
        self.engine = Engine(
            self.executable,
            CONTEXT,
            kept=kept,
            drafter=guess if drafts else None,
            graphs=graphs() if self.sees else {},
            max_patches=chance.choice([FRAME, 2 * FRAME]),
            feature_bytes=chance.choice([0, 60, 1 << 20]),
        )
        self.capacity = min(self.engine.capacity, CONTEXT)
        self.sequences: list[SequenceState] = []
        self.prompts: list[tuple[tuple[int, ...], tuple[PlacedItem, ...]]] = []
        self.sketches = [Sketch(range(n, n + size)) for n, size in ((1, FRAME), (2, FRAME), (3, 4 * FRAME))]
        self.failures: list[Exception] = []
        self.ended: set[SequenceState] = set()
        self.refused: list[PromptError] = []

    def live(self) -> None:
        happenings = [self.ask, self.advance, self.cancel, self.fail_once, self.fail_all, self.damage, self.go_on]
        happenings += [self.break_sketch, self.ask_wrongly]
        weights = [45, 35, 10, 4, 1, 2, 3, 1, 4]
        for _ in range(self.chance.randrange(10, 60)):
            (happens,) = self.chance.choices(happenings, weights)
            happens()
            self.check_books()
        for _ in range(STEPS):
            if all(sequence.finish for sequence in self.sequences):
                break
            self.advance(1)
            self.check_books()
        self.advance(1)
        self.check_answers()
        self.engine.close()

    def ask(self) -> None:
        chance, count = self.chance, self.chance.randrange(1, self.capacity)
        ids = tuple(chance.randrange(VOCAB) for _ in range(count))
        items: tuple[PlacedItem, ...] = ()
        if self.prompts and chance.random() < 0.7:  # begins like an earlier one, but perhaps for its first token
            before, items = chance.choice(self.prompts)
            first = (before[0] + (chance.random() < 0.4)) % VOCAB
            ids = (first, *before[1:], *ids)[: max(count, min(len(before) + 3, self.capacity))]
        ids, items = self.draw(ids, items)
        request = Request(
            ids,
            chance.randrange(1, self.capacity - len(ids) + 2),
            namespace=chance.choice([b"", b"", b"mine"]),
            priority=chance.choice([0, 0, 0, 1, 2]),
            tenant=chance.choice("abc"),
            like=chance.choice(self.sequences) if self.sequences and chance.random() < 0.3 else None,
            chunk=chance.choice([None, None, 3]),
            all_logits=chance.random() < 0.1,
            reuse_after_change=chance.random() < 0.3,
            sampling=chance.choice([GREEDY, GREEDY, SamplingParams(logprobs=1)]),
            items=items,
        )
        self.sequences.append(self.engine.submit(request))
        self.prompts.append((ids, items))

    def ask_wrongly(self) -> None:
        """A request that cannot be: it is refused, and nothing of it stays."""
        chance, ids = self.chance, (1, 2, 3)
        positions = PerToken(np.zeros((chance.choice([2, 3]), chance.choice([2, 3])), np.int32))
        sketch = self.sketches[0]
        wrong = chance.choice([
            Request((), 1),
            Request(ids, 0),
            Request(ids, chance.choice([self.capacity + 1, 2**60])),
            Request(ids * self.capacity, 1),
            Request(ids, 1, inputs={"unheard_of": positions}),
            Request(ids, 1, inputs={"positions": positions}, items=(PlacedItem(0, sketch),)),
            Request(ids, 1, items=(PlacedItem(chance.choice([-1, 1, 2**60]), sketch),)),
            Request(ids * 2, 1, items=(PlacedItem(2, sketch), PlacedItem(0, sketch))),
        ])  # fmt: skip
        before = len(self.engine._scheduler.waiting)
        try:
            self.sequences.append(self.engine.submit(replace(wrong, tenant=chance.choice("abc"))))
            self.prompts.append((wrong.ids, wrong.items))
        except PromptError as error:
            self.refused.append(error)
            assert len(self.engine._scheduler.waiting) == before

    def draw(
        self, ids: tuple[int, ...], items: tuple[PlacedItem, ...]
    ) -> tuple[tuple[int, ...], tuple[PlacedItem, ...]]:
        """Sketches in a prompt, beside those that are there, and now and then another one of the same ids."""
        chance, known = self.chance, list(ids)
        items = tuple(placed for placed in items if placed.stop <= len(known))
        if items and chance.random() < 0.3:
            *others, last = items
            alike = [sketch for sketch in self.sketches if sketch.tokens == last.item.tokens]
            items = (*others, PlacedItem(last.start, chance.choice(alike)))
        start = items[-1].stop if items else 0
        while self.sees and chance.random() < 0.6:
            start += chance.randrange(4)
            sketch = chance.choice(self.sketches)
            if start + sketch.tokens > len(known):
                break
            items += (PlacedItem(start, sketch),)
            known[start : start + sketch.tokens] = [PLACEHOLDER] * sketch.tokens
            start += sketch.tokens
        return tuple(known), items

    def go_on(self) -> None:
        """Conversations: what was answered is a prompt."""
        for sequence in self.sequences[-5:]:
            ids = tuple(sequence.tokens)[: self.capacity - 1]
            self.prompts.append((ids, tuple(each for each in sequence.request.items if each.stop <= len(ids))))

    def advance(self, steps: int | None = None) -> None:
        for _ in range(steps or self.chance.randrange(1, 6)):
            self.engine.step()
            for sequence in self.sequences:
                while sequence.events:
                    assert sequence not in self.ended, "an event after the end"
                    if sequence.events.popleft().finish:
                        self.ended.add(sequence)

    def cancel(self) -> None:
        if self.sequences:
            self.engine.cancel(self.chance.choice(self.sequences))

    def fail_once(self) -> None:
        self.failures.append(RuntimeError("one call"))
        call = self.chance.choice(["submit", "result", "copy", "write_rows", "read_rows"])
        self.executable.errors[call] = self.failures[-1]

    def break_sketch(self) -> None:
        """One that cannot be made ready from now on, or can again."""
        sketch = self.chance.choice(self.sketches)
        self.failures.append(RuntimeError("a broken sketch"))
        sketch.broken = None if sketch.broken else self.failures[-1]

    def fail_all(self) -> None:
        self.failures.append(RuntimeError("all of it"))
        self.engine.fail(self.failures[-1])

    def damage(self) -> None:
        for record in self.records.glob("*.rows"):
            if self.chance.random() < 0.5:
                with suppress(FileNotFoundError):  # it has given way to another one meanwhile
                    record.write_bytes(record.read_bytes()[:-1])

    def check_books(self) -> None:
        """Each row has as many holders as it counts, and everybody waits, runs or has ended."""
        scheduler = self.engine._scheduler
        table = scheduler.rows
        if isinstance(table, PagedRows):
            seats = [sequence.seat for sequence in scheduler.running]
            held = Counter(page for seat in seats for page in table.tables[seat, : table.held[seat]].tolist())
            assert {page: n for page, n in enumerate(table.pool.references.tolist()) if n} == dict(held)
            assert len(held) + table.pool.free + table.pool.idle == self.executable.cache.pages
        if isinstance(table, SlotRows):
            taken = sorted(int(table.tables[sequence.seat, 0]) for sequence in scheduler.running)
            assert taken == list(range(table._working)), "the slots at work are the first ones, each of one sequence"
        waiting = list(scheduler.waiting)
        assert len(waiting) == len(set(waiting)) == len(scheduler.waiting)
        for sequence in self.sequences:
            assert (sequence in scheduler.running or sequence in waiting) == (sequence.finish is None)

    def expected(self, request: Request) -> list[int]:
        new = request.max_new_tokens
        return said(request, new) if self.sees else answer(request.ids, new)

    def check_answers(self) -> None:
        for sketch in self.sketches:
            sketch.broken = None
        for sequence in self.sequences:
            assert sequence in self.ended, "it never ends"
            if sequence.finish == "error":
                assert sequence.error in self.failures
            if not sequence.request.reuse_after_change:
                expected = self.expected(sequence.request)
                whole = sequence.finish not in ("cancelled", "error")
                assert sequence.generated == (expected if whole else expected[: len(sequence.generated)])
            assert not sequence.features
            self.check_tenancy(sequence)
        assert self.engine.stats().held_rows == 0

    def check_tenancy(self, sequence: SequenceState) -> None:
        """What it took from the cache is the beginning of something that its own namespace has asked or said."""
        if not sequence.cached or sequence.cached_after_change:
            return
        mine = sequence.identity(len(sequence.request.ids))
        others = [
            common(mine, other.identity(len(other.tokens)))
            for other in self.sequences
            if other is not sequence and other.request.namespace == sequence.request.namespace
        ]
        assert sequence.cached <= max(others, default=0), "rows of somebody else"


def guess(sequence: SequenceState, most: int) -> list[int]:
    """Guesses of which one is often wrong."""
    wrong = len(sequence.tokens) * 7 % 5
    return [(token + (place == wrong)) % VOCAB for place, token in enumerate(answer(sequence.tokens, most))]
