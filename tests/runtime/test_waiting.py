"""Who comes next: priorities, tenants in turns, sequences that share a prompt."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.runtime.waiting import Waiting
from support.toy import ToyExecutable, answer


def sequence(tenant: str = "", priority: int = 0, length: int = 4, like: SequenceState | None = None) -> SequenceState:
    return SequenceState(Request((1,) * length, 4, tenant=tenant, priority=priority, like=like))


def leave(waiting: Waiting, count: int) -> list[SequenceState]:
    """The next ones in their order, each served its prompt."""
    left = []
    for _ in range(count):
        left.append(waiting.first())
        waiting.remove(left[-1])
        waiting.serve(left[-1], len(left[-1].tokens))
    return left


def test_the_order_of_arrival() -> None:
    waiting = Waiting()
    first, second, third = (sequence() for _ in range(3))
    for each in (first, second, third):
        waiting.add(each)
    assert len(waiting) == 3 and second in waiting
    waiting.remove(second)
    waiting.add_again(second)
    assert list(waiting) == leave(waiting, 3) == [second, first, third]
    assert not waiting and waiting.first() is None


def test_priorities_come_first_whoever_asks() -> None:
    waiting = Waiting()
    low, high, highest = sequence("a", 5), sequence("b", 0, length=99), sequence("a", -3)
    for each in (low, high, highest):
        waiting.add(each)
    assert leave(waiting, 3) == [highest, high, low]


def test_a_tenant_with_many_requests_does_not_hold_up_another() -> None:
    waiting = Waiting()
    many, one = [sequence("many") for _ in range(5)], sequence("one")
    for each in (*many, one):
        waiting.add(each)
    assert leave(waiting, 3) == [many[0], one, many[1]]


def test_turns_are_counted_in_tokens() -> None:
    waiting = Waiting()
    long, short = [sequence("long", length=30) for _ in range(2)], [sequence("short", length=10) for _ in range(6)]
    for each in (*long, *short):
        waiting.add(each)
    assert leave(waiting, 6) == [long[0], *short[:3], long[1], short[3]]


def test_one_who_asked_for_nothing_gains_no_claim() -> None:
    waiting = Waiting()
    busy = [sequence("busy", length=50) for _ in range(6)]
    for each in busy:
        waiting.add(each)
    leave(waiting, 3)
    new = [sequence("new", length=50) for _ in range(3)]
    for each in new:
        waiting.add(each)
    assert set(map(id, leave(waiting, 2))) == {id(busy[3]), id(new[0])}, "they take turns from here"
    for each in (*busy[:4], new[0]):
        waiting.leave(each)
    assert waiting._served
    for each in (*leave(waiting, 4),):
        waiting.leave(each)
    assert not waiting._served, "nobody asks: nothing is remembered"


def test_a_follower_waits_for_the_rows_of_its_prompt() -> None:
    waiting, leader = Waiting(), sequence()
    follower = sequence(like=leader)
    waiting.add(follower)
    assert waiting.first() is None and len(waiting) == 1 and follower in waiting
    waiting.share(leader)
    assert waiting.first() is follower
    leader.tokens.append(7)
    late = sequence(like=leader)
    waiting.add(late)
    assert leave(waiting, 2) == [follower, late]


def test_followers_come_before_what_came_after_them() -> None:
    waiting, leader = Waiting(), sequence()
    followers, later = [sequence(like=leader) for _ in range(3)], [sequence() for _ in range(2)]
    for each in (leader, *followers, *later):
        waiting.add(each)
    assert leave(waiting, 1) == [leader]
    waiting.share(leader)
    assert leave(waiting, 5) == [*followers, *later]


def test_what_lost_its_rows_comes_first_of_its_priority_alone() -> None:
    waiting = Waiting()
    lost, beside, urgent = sequence(priority=1), sequence(priority=1), sequence()
    for each in (lost, beside):
        waiting.add(each)
    waiting.remove(lost)
    waiting.add_again(lost)
    waiting.add(urgent)
    assert list(waiting) == [lost, beside, urgent] and leave(waiting, 3) == [urgent, lost, beside]


def test_nothing_is_remembered_for_ever_while_somebody_always_asks() -> None:
    waiting = Waiting()
    waiting.add(sequence("always"))
    for number in range(300):
        other = sequence(f"tenant {number}", priority=number)
        for each in (sequence("always"), other):
            waiting.add(each)
        waiting.remove(other)
        waiting.serve(other, 3)
        waiting.leave(other)
        waiting.leave(*leave(waiting, 1))
        assert len(waiting) == 1 and len(waiting._served) <= 3 and len(waiting._ranks) == 1


def test_an_order_of_many() -> None:
    """By the definition, which looks at all of them."""
    random = Random(5)
    waiting, queued, served = Waiting(), dict[SequenceState, None](), Counter[str]()
    for _ in range(600):
        if random.random() < 0.52:
            each = sequence(random.choice("abcde"), random.choice((0, 0, 1)), length=random.randrange(1, 9))
            waiting.add(each)
            queued[each] = None
        elif queued and random.random() < 0.3:
            each = random.choice(list(queued))
            waiting.remove(each)
            del queued[each]
        elif queued:
            first = waiting.first()
            assert first is not None
            lowest = min(each.request.priority for each in queued)
            asking = {each.request.tenant for each in queued if each.request.priority == lowest}
            assert first.request.priority == lowest
            assert served[first.request.tenant] == min(served[tenant] for tenant in asking)
            theirs = [
                each
                for each in queued
                if (each.request.tenant, each.request.priority) == (first.request.tenant, lowest)
            ]
            assert theirs[0] is first
            assert leave(waiting, 1) == [first]
            served[first.request.tenant] += len(first.tokens)
            del queued[first]
        assert len(waiting) == len(queued) and set(waiting) == set(queued)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_followers_share_the_prompt(kind: str, ahead: int) -> None:
    prompt = tuple(range(1, 11))
    cache = CacheShape("paged", 4, 40) if kind == "paged" else CacheShape("slots", 40, 4)
    run = Engine(ToyExecutable(cache, StepLimits(16, 4, kind == "paged"), ahead=ahead), 40)
    leader = run.submit(Request(prompt, 6))
    followers = [run.submit(Request(prompt, 6, like=leader)) for _ in range(3)]
    list(run.run(leader, *followers))
    assert all(each.generated == answer(prompt, 6) for each in (leader, *followers))
    assert leader.cached == 0 and [each.cached for each in followers] == [9, 9, 9]
    assert run.stats().cached_tokens == 27 and run.stats().prompt_tokens == 40


@pytest.mark.parametrize("finish", ["cancelled", "error"])
def test_followers_of_one_that_ended_go_on_alone(finish: str) -> None:
    run = Engine(ToyExecutable(CacheShape("paged", 4, 40), StepLimits(16, 4)), 40)
    leader = run.submit(Request((1, 2, 3), 6))
    follower = run.submit(Request((1, 2, 3), 6, like=leader))
    run.cancel(leader, RuntimeError("gone") if finish == "error" else None)
    list(run.run(follower))
    assert leader.finish == finish and follower.generated == answer((1, 2, 3), 6)


def test_a_follower_can_be_cancelled_while_it_waits() -> None:
    run = Engine(ToyExecutable(CacheShape("paged", 4, 40), StepLimits(16, 4)), 40)
    leader = run.submit(Request((1, 2, 3), 6))
    follower = run.submit(Request((1, 2, 3), 6, like=leader))
    run.cancel(follower)
    list(run.run(leader))
    assert follower.finish == "cancelled" and leader.generated == answer((1, 2, 3), 6) and not run.busy


def test_the_lowest_priority_gives_way() -> None:
    """Not the one admitted last, which matters more."""
    run = Engine(ToyExecutable(CacheShape("paged", 4, 5), StepLimits(16, 4)), 20)
    low = run.submit(Request((1, 2, 3, 4), 8, priority=1))
    high = run.submit(Request((5, 6, 7), 12))
    list(run.run(high))
    assert run.stats().preemptions and high.entered == 14
    list(run.run(low))
    assert low.generated == answer((1, 2, 3, 4), 8) and high.generated == answer((5, 6, 7), 12)


def test_while_the_lowest_priority_waits_for_rows_others_are_read() -> None:
    """Where decodes and prefills alternate, and it is the turn of the only decode, which has no room."""
    run = Engine(ToyExecutable(CacheShape("paged", 4, 5), StepLimits(16, 4, mixed=False)), 20)
    low = run.submit(Request((1,) * 15, 5, priority=1))
    while low.seat < 0 or run._scheduler.seats.entered[low.seat] < 16:
        run.step()
    high = run.submit(Request((5, 6, 7, 8), 1, chunk=2))
    list(run.run(high, low))
    assert low.generated == answer((1,) * 15, 5) and high.generated == answer((5, 6, 7, 8), 1)


def test_statistics() -> None:
    run = Engine(ToyExecutable(CacheShape("paged", 4, 40), StepLimits(16, 4), ahead=1), 40)
    first, second = (
        run.submit(Request((1, 2, 3), 6)),
        run.submit(Request((4, 5), 3, stop_ids=frozenset(answer((4, 5), 1)))),
    )
    assert (run.stats().waiting, run.stats().running) == (2, 0)
    run.step()
    assert (run.stats().waiting, run.stats().running, run.stats().held_rows) == (0, 2, 8)
    list(run.run(first, second))
    stats = run.stats()
    assert (stats.prompt_tokens, stats.generated_tokens, stats.held_rows) == (5, 7, 0)
    assert stats.finished == {"stop": 1, "length": 1, "cancelled": 0, "error": 0} and stats.batched >= stats.steps >= 6
