"""Whatever is submitted, stepped and cancelled in whatever order: rows have one owner, and tokens are the model's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.pages import PagePool
from ernie_rt.runtime.prefix import PrefixTree
from ernie_rt.runtime.rows import PagedRows
from ernie_rt.runtime.scheduler import Scheduler
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import GREEDY, SamplingParams
from support.pages import free_pages
from support.sampling import sampled_answer
from support.toy import VOCAB, ToyExecutable, answer

STOP = frozenset({3, 11})
SAMPLED = SamplingParams(temperature=0.6, top_p=0.9, seed=5, repetition_penalty=1.2, min_new_tokens=2)


@dataclass(frozen=True)
class Shape:
    cache: CacheShape
    admits: StepLimits
    ahead: int
    max_context: int
    drafts: bool = False


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    max_sequences = draw(st.integers(1, 5))
    max_tokens = draw(st.sampled_from([1, 2, 3, 5, 8, 12]))
    mixed, ahead = draw(st.booleans()), draw(st.integers(0, 2))
    max_prefills = draw(st.sampled_from([1, 2, 100]))
    drafts = draw(st.booleans())
    admits = StepLimits(max_tokens, max_sequences, mixed, max_prefills, 3 if drafts else 0)
    if draw(st.booleans()):
        size = draw(st.integers(6, 20))
        return Shape(CacheShape("slots", size, max_sequences), admits, ahead, size, drafts)
    size, pages = draw(st.integers(1, 3)), draw(st.integers(3, 9))  # often too few for all: sequences get preempted
    return Shape(CacheShape("paged", size, pages), admits, ahead, draw(st.integers(2, 2 * size * pages)), drafts)


class Traffic(RuleBasedStateMachine):
    """Requests come, steps are made, some are cancelled; at the end everything runs out."""

    @initialize(shape=shapes())
    def start(self, shape: Shape) -> None:
        self.shape = shape
        self.executable = ToyExecutable(shape.cache, shape.admits, ahead=shape.ahead)
        self.engine = Engine(self.executable, shape.max_context, drafter=guess if shape.drafts else None)
        self.failures: list[Exception] = []
        self.sequences: list[SequenceState] = []
        self.told: Counter[SequenceState] = Counter()
        self.ended: set[SequenceState] = set()

    @rule(data=st.data(), all_logits=st.sampled_from([False, False, True]))
    def submit(self, data: st.DataObject, all_logits: bool) -> None:
        capacity = self.engine.capacity
        length = data.draw(st.integers(1, min(3, capacity)) | st.integers(1, capacity))
        room = capacity - length + 1
        new = 0 if all_logits else data.draw(st.integers(1, room))
        ids = tuple(data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=length, max_size=length)))
        if self.sequences and data.draw(st.booleans()):  # what an earlier one said, and more
            begun = data.draw(st.sampled_from(self.sequences)).tokens
            ids = (*begun, *ids)[:length]
        stop = data.draw(st.sampled_from([frozenset[int](), STOP]))
        chunk = data.draw(st.sampled_from([None, None, 1, 2, 3]))
        sampling = GREEDY if all_logits else data.draw(st.sampled_from([GREEDY, GREEDY, SAMPLED]))
        like = data.draw(st.sampled_from([None, None, *self.sequences]))
        priority = data.draw(st.sampled_from([0, 0, 1]))
        request = Request(ids, new, stop, all_logits, chunk, sampling, like=like, priority=priority)
        self.sequences.append(self.engine.submit(request))

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.advance()

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.engine.cancel(data.draw(st.sampled_from(self.sequences)))

    @rule(call=st.sampled_from(["submit", "result", "copy"]))
    def fail(self, call: str) -> None:
        """The next call of this kind fails."""
        self.failures.append(RuntimeError(call))
        self.executable.errors[call] = self.failures[-1]

    def advance(self) -> None:
        self.engine.step()
        for sequence in self.sequences:
            while sequence.events:
                event = sequence.events.popleft()
                self.told[sequence] += event.token is not None
                assert event.sequence is sequence and (event.finish is None or event.finish == sequence.finish)
                assert sequence not in self.ended, "nothing comes after the end"
                if event.finish is not None:
                    self.ended.add(sequence)
            assert self.told[sequence] == len(sequence.generated)

    @invariant()
    def every_page_and_seat_has_its_owners(self) -> None:
        if not hasattr(self, "engine"):
            return
        scheduler = self.engine._scheduler
        seats = [sequence.seat for sequence in scheduler.running]
        assert len(set(seats)) == len(seats) <= self.shape.admits.max_sequences
        rows = scheduler.rows
        tables = [rows.tables[seat, : rows.held[seat]].tolist() for seat in seats]
        held = Counter(page for table in tables for page in table)
        if isinstance(rows, PagedRows):
            pool = rows.pool
            assert {page: count for page, count in enumerate(pool.references.tolist()) if count} == dict(held)
            assert len(held) + pool.free + pool.idle == self.shape.cache.pages
            assert all(page in rows._tree for page in pool._idle) and not any(page in rows._tree for page in pool._free)
        else:
            assert sorted(held.elements()) == list(range(len(seats)))
        for sequence in self.sequences:
            assert (sequence in scheduler.running or sequence in scheduler.waiting) == (sequence.finish is None)
            assert (sequence in scheduler.running) == (sequence.seat >= 0)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        bound = 10 + 4 * sum(s.request.most_entered for s in self.sequences) * (1 + len(self.sequences))
        for _ in range(bound):
            if all(s.finish is not None for s in self.sequences):
                break
            self.advance()
        self.advance()  # for the events of those that were cancelled last
        for sequence in self.sequences:
            request = sequence.request
            if request.sampling.plain:
                expected = answer(request.ids, request.max_new_tokens, request.stop_ids)
            else:
                expected = sampled_answer(
                    request.ids, request.max_new_tokens, request.sampling, sorted(request.stop_ids)
                )
            if sequence.finish in ("cancelled", "error"):
                assert sequence.generated == expected[: len(sequence.generated)]
                assert (sequence.error in self.failures) == (sequence.finish == "error")
                continue
            assert sequence.finish is not None, "a sequence never ends"
            assert sequence.generated == expected
            assert (sequence.finish == "stop") == bool(expected and expected[-1] in request.stop_ids)
            if request.all_logits:
                told = [int(row.argmax()) for block in sequence.logits for row in block]
                assert told == [answer(request.ids[: i + 1], 1)[0] for i in range(len(request.ids))]
        assert self.ended == set(self.sequences)
        while self.engine._steps:
            self.advance()
        assert free_pages(self.engine) == self.shape.cache.pages
        assert self.executable.read == list(range(len(self.executable.steps)))


def guess(sequence: SequenceState, most: int) -> list[int]:
    """What the toy says next, and now and then what it does not."""
    drafts = answer(sequence.tokens, most)
    wrong = len(sequence.tokens) * 7 % 5
    return [(token + (place == wrong)) % VOCAB for place, token in enumerate(drafts)]


def test_traffic() -> None:
    run_state_machine_as_test(
        Traffic, settings=settings(max_examples=150, stateful_step_count=25, deadline=None, derandomize=True)
    )


def sequence(length: int, new: int = 8, chunk: int | None = None) -> SequenceState:
    return SequenceState(Request(tuple(range(length)), new, chunk=chunk))


def scheduled(admits: StepLimits, *sequences: SequenceState, pages: int = 100, page_size: int = 4) -> Scheduler:
    cache = CacheShape("paged", page_size, pages)
    scheduler = Scheduler(cache, admits, page_size * pages, ahead=1, reuse=False)
    for each in sequences:
        scheduler.waiting.add(each)
    return scheduler


def play(scheduler: Scheduler, *, read: bool = True) -> list[tuple[SequenceState, int]]:
    """Compose a step and do to its sequences what the engine does; `read` its result at once."""
    scheduler.admit()
    batch = scheduler.compose()
    if batch is None:
        return []
    scheduler.enter(batch)
    if read:
        tell(scheduler, *(s for s, samples in zip(batch.sequences, batch.samples, strict=True) if samples))
        scheduler.seats.unread[batch.seats] = 0
    return list(zip(batch.sequences, batch.new.tolist(), strict=True))


def tell(scheduler: Scheduler, *sequences: SequenceState) -> None:
    """The result of what they have in flight, a token each, is read."""
    for each in sequences:
        each.tokens.append(0)
        scheduler.seats.known[each.seat] += 1
        scheduler.seats.flying[each.seat] -= 1
        scheduler.seats.unread[each.seat] = 0


def test_decodes_come_first_and_prefills_share_what_is_left() -> None:
    first, second, third = sequence(3), sequence(9), sequence(4)
    scheduler = scheduled(StepLimits(6, 4), first)
    assert play(scheduler) == [(first, 3)]
    scheduler.waiting.add(second)
    scheduler.waiting.add(third)
    assert play(scheduler) == [(first, 1), (second, 5)]
    assert play(scheduler) == [(first, 1), (second, 4), (third, 1)]
    assert play(scheduler) == [(first, 1), (second, 1), (third, 3)]


def test_without_mixing_prefills_and_decodes_alternate_and_no_rest_of_one_token_joins_a_prefill() -> None:
    first, second, third = sequence(3), sequence(5), sequence(5)
    scheduler = scheduled(StepLimits(6, 3, mixed=False), first)
    play(scheduler)
    scheduler.waiting.add(second)
    scheduler.waiting.add(third)
    assert play(scheduler) == [(first, 1)]
    assert play(scheduler) == [(second, 5)]
    assert play(scheduler) == [(first, 1), (second, 1)]
    assert play(scheduler) == [(third, 5)]
    assert play(scheduler) == [(first, 1), (second, 1), (third, 1)]


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_an_answer_goes_on_while_prompts_keep_coming(kind: Literal["paged", "slots"]) -> None:
    cache = CacheShape("paged", 4, 200) if kind == "paged" else CacheShape("slots", 64, 4)
    scheduler = Scheduler(cache, StepLimits(6, 4, mixed=False, max_prefills=1), 64)
    told = sequence(3, new=40)
    scheduler.waiting.add(told)
    for number in range(90):
        if number % 2 and len(scheduler.running) < 4:
            scheduler.waiting.add(sequence(12, new=1))
        play(scheduler)
        for each in scheduler.running:
            if len(each.generated) >= each.request.max_new_tokens:
                scheduler.release(each, "length")
    assert told.finish == "length"


def test_a_prompt_fed_token_by_token_is_decoded() -> None:
    first, second = sequence(3, chunk=1), sequence(3)
    scheduler = scheduled(StepLimits(6, 2, mixed=False, max_prefills=1), first, second)
    assert play(scheduler) == [(second, 3)]
    assert play(scheduler) == [(first, 1), (second, 1)]


def test_without_mixing_a_prefill_that_is_cut_brings_no_single_token() -> None:
    """It would be a decode among prefills."""
    first, second = sequence(5), sequence(4)
    scheduler = scheduled(StepLimits(6, 2, mixed=False), first, second)
    assert play(scheduler) == [(first, 5)]
    assert play(scheduler) == [(first, 1)]
    assert play(scheduler) == [(second, 4)]


def test_no_more_sequences_run_than_a_step_has_tokens() -> None:
    """Or one of them would stop in the middle of its answer until another one ends."""
    first, second, third = sequence(2), sequence(2), sequence(2)
    scheduler = scheduled(StepLimits(2, 3, mixed=False), first, second, third)
    assert [play(scheduler) for _ in range(5)] == [
        [(first, 2)],
        [(first, 1)],
        [(second, 2)],
        [(first, 1), (second, 1)],
        [(first, 1), (second, 1)],
    ]
    scheduler.release(first, "length")
    assert play(scheduler) == [(third, 2)]
    assert play(scheduler) == [(second, 1), (third, 1)]


def test_the_sequence_admitted_last_gives_way() -> None:
    old, young = sequence(4), sequence(4)
    scheduler = scheduled(StepLimits(9, 2), old, young, pages=2)
    assert play(scheduler) == [(old, 4), (young, 4)]
    newcomer = sequence(1)
    scheduler.waiting.add(newcomer)
    assert play(scheduler) == [(old, 1)]
    assert (young.seat, len(young.tokens)) == (-1, 5)
    assert list(scheduler.waiting) == [young, newcomer]
    scheduler.release(old, "length")
    assert play(scheduler) == [(young, 5)]


def test_one_that_should_give_way_takes_no_step_until_its_tokens_are_known() -> None:
    """Or the older sequence would wait for as long as the younger one goes on."""
    old, young = sequence(4), sequence(3)
    scheduler = scheduled(StepLimits(9, 2), old, young, pages=2)
    play(scheduler, read=False)
    assert play(scheduler, read=False) == []
    tell(scheduler, old, young)
    assert play(scheduler) == [(old, 1)]
    assert list(scheduler.waiting) == [young]


def test_a_chunk_under_way_is_not_preempted() -> None:
    """It samples nothing, but its logits are still to come."""
    old, young = sequence(4), sequence(4, chunk=2)
    scheduler = scheduled(StepLimits(9, 2), old, young, pages=2)
    play(scheduler, read=False)
    tell(scheduler, old)
    assert play(scheduler) == []
    scheduler.seats.unread[young.seat] = 0
    assert play(scheduler) == [(old, 1)]


@given(st.lists(st.tuples(st.sampled_from(["new", "grow", "give back"]), st.integers(0, 9)), max_size=60))
def test_a_page_pool_hands_out_every_page_once(plan: list[tuple[str, int]]) -> None:
    pool, held, free = PagePool(10, PrefixTree(4)), list[list[int]](), set(range(10))
    for action, which in plan:
        if action == "new" and free:
            held.append([pool.take()])
            assert held[-1] == [min(free)]
            free -= set(held[-1])
        elif action == "grow" and free and held:
            run = held[which % len(held)]
            run.append(pool.take(run[-1]))
            assert run[-1] == (run[-2] + 1 if run[-2] + 1 in free else min(free))
            free.remove(run[-1])
        elif action == "give back" and held:
            pages = held.pop(which % len(held))
            for page in pages:
                pool.give_back(page)
            free |= set(pages)
        assert pool.free == len(free)
        assert len(pool._heap) <= 10


def test_a_step_of_one_token_at_a_time() -> None:
    """An executable that takes no more than one token is fed decodes alone."""
    first, second = sequence(3), sequence(2)
    scheduler = scheduled(StepLimits(1, 2, mixed=False, max_prefills=1), first, second)
    assert [play(scheduler) for _ in range(4)] == [[(first, 1)]] * 4
