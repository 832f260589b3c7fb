"""Rows that earlier sequences have left take the place of computing them; no answer changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.prefix import Partly, PrefixTree, common
from ernie_rt.runtime.rows import PagedRows
from ernie_rt.runtime.sequence import Request, SequenceState
from support.pages import free_pages
from support.toy import VOCAB, ToyExecutable, answer

SIZE = 4
ADMITS = StepLimits(16, 3)


def toy(kind: str, *, pages: int = 60) -> ToyExecutable:
    cache = CacheShape("paged", SIZE, pages) if kind == "paged" else CacheShape("slots", 64, 3)
    return ToyExecutable(cache, ADMITS if kind == "paged" else replace(ADMITS, mixed=False, max_prefills=1))


def ask(engine: Engine, ids: tuple[int, ...], new: int = 5, namespace: bytes = b"") -> SequenceState:
    """A sequence that has ended, with the right answer."""
    sequence = engine.submit(Request(ids, new, namespace=namespace))
    assert [event.token for event in engine.run(sequence)] == answer(ids, new) == sequence.generated
    return sequence


def entered(executable: ToyExecutable) -> int:
    return sum(len(step.ids) for step in executable.steps)


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_a_conversation_enters_what_is_new(kind: str) -> None:
    executable = toy(kind)
    engine = Engine(executable, 64)
    ids: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    there = 0
    for turn in range(6):
        before = entered(executable)
        sequence = ask(engine, ids, new=3)
        assert sequence.reused == there
        assert entered(executable) - before == len(ids) + 2 - there  # the last token of an answer never enters
        there = len(ids) + 2
        ids = (*ids, *sequence.generated, turn, 7)


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_another_way_on_from_the_middle(kind: str) -> None:
    executable = toy(kind)
    engine = Engine(executable, 64)
    ids = tuple(range(11))
    said = [ask(engine, ids).tokens[:-1]]
    for length in (11, 10, 9, 8, 7, 4, 1, 11):
        other = (*ids[:length], 12, 12, 12)[: 14 if length < 11 else 11]
        # The last token has to enter, for its logits.
        alike = max(common(items(list(other[:-1])), items(each)) for each in said)
        assert length - 1 <= alike <= len(other)
        sequence = ask(engine, other)
        assert sequence.reused == alike or kind == "slots"  # of which there are few
        said.append(sequence.tokens[:-1])
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_a_prompt_that_is_still_being_answered(kind: str) -> None:
    executable = toy(kind)
    engine = Engine(executable, 64)
    ids = (3, 1, 4, 1, 5, 9)
    first = engine.submit(Request(ids, 20))
    run = engine.run(first)
    next(run)
    others = [engine.submit(Request(ids, 7)), engine.submit(Request((*ids, 2), 7))]
    list(engine.run(*others))
    assert [each.reused for each in others] == [5, 6]
    assert [each.generated for each in others] == [answer(ids, 7), answer((*ids, 2), 7)]
    assert [event.token for event in run] == answer(ids, 20)[1:]


def test_namespaces_are_apart() -> None:
    engine = Engine(toy("paged"), 64)
    ids = tuple(range(9))
    assert ask(engine, ids, namespace=b"a").reused == 0
    assert ask(engine, ids, namespace=b"b").reused == 0
    assert ask(engine, ids, namespace=b"a").reused == 8


def test_who_wants_all_logits_computes_them() -> None:
    executable = toy("paged")
    engine = Engine(executable, 64)
    ids = tuple(range(9))
    ask(engine, ids)
    sequence = engine.submit(Request(ids, 0, all_logits=True))
    list(engine.run(sequence))
    assert sequence.reused == 0 and sum(map(len, sequence.logits)) == 9
    assert ask(engine, (*ids, 5)).reused == 9


def test_without_reuse_nothing_is_kept() -> None:
    executable = toy("paged")
    engine = Engine(executable, 64, reuse=False)
    ids = tuple(range(9))
    assert ask(engine, ids).reused == ask(engine, ids).reused == 0
    assert not executable.errors and {int(step.tables[0, 0]) for step in executable.steps} == {0}


def test_what_was_used_longest_ago_gives_way() -> None:
    engine = Engine(toy("paged", pages=12), 64)
    first, second, third = ((start,) * 12 for start in (1, 2, 3))
    for ids in (first, second, first, third):  # 4 pages each: the second goes
        ask(engine, ids, new=2)
    assert ask(engine, first, new=2).reused == 11
    assert ask(engine, third, new=2).reused == 11
    assert ask(engine, second, new=2).reused < 11


def test_slots_keep_the_last_conversations() -> None:
    """All but one, which has to make room where the next one begins."""
    for slots in (1, 3, 4):
        executable = ToyExecutable(CacheShape("slots", 40, slots), StepLimits(16, slots, mixed=False, max_prefills=1))
        engine = Engine(executable, 40)
        prompts = [(start,) * 9 for start in range(slots)]
        for ids in prompts:
            ask(engine, ids)
        for ids in prompts[: -max(slots, 2) : -1]:
            assert ask(engine, (*ids, 12)).reused == 9
        assert not executable.errors


def test_a_sequence_with_an_error_leaves_nothing() -> None:
    executable = toy("paged")
    engine = Engine(executable, 64)
    ids = tuple(range(9))
    executable.errors["result"] = RuntimeError("gone")
    with pytest.raises(RuntimeError, match="gone"):
        list(engine.run(engine.submit(Request(ids, 4))))
    assert ask(engine, ids).reused == 0


def test_pages_of_a_cancelled_sequence_hold_what_they_should() -> None:
    engine = Engine(toy("paged"), 64)
    ids = tuple(range(9))
    run = engine.run(engine.submit(Request(ids, 20)))
    told = [next(run).token for _ in range(4)]
    run.close()  # type: ignore[attr-defined]
    assert told == answer(ids, 4)
    assert ask(engine, (*ids, *told[:3], 1)).reused == 12  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_rows_of_a_step_that_fails_after_its_sequence_was_cancelled_are_not_found(kind: str) -> None:
    whole = toy(kind)
    executable = ToyExecutable(whole.cache, whole.admits, ahead=1)
    engine = Engine(executable, 64)
    ids = tuple(range(9))
    executable.errors["result"] = RuntimeError("gone")
    first = engine.submit(Request(ids, 9))
    engine.step()
    engine.cancel(first)
    engine.step()
    assert first.finish == "cancelled"
    assert ask(engine, ids).reused == 0
    assert ask(engine, ids).reused == 8


@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_rows_of_the_step_after_the_last_that_was_read_are_not_found(kind: str) -> None:
    whole = toy(kind)
    executable = ToyExecutable(whole.cache, whole.admits, ahead=1)
    engine = Engine(executable, 64)
    ids = tuple(range(9))
    first = engine.submit(Request(ids, 9))
    engine.step()
    executable.errors["result"] = RuntimeError("gone")
    engine.step()  # submits the step of the first token, which fails, and reads that of the prompt
    engine.cancel(first)
    engine.step()
    assert first.generated == answer(ids, 1) and not executable.errors
    assert ask(engine, (*first.tokens, 2)).reused == len(ids)


def test_rows_that_are_on_their_way_are_not_copied_from_a_slot() -> None:
    whole = toy("slots")
    executable = ToyExecutable(whole.cache, whole.admits, ahead=1)
    engine = Engine(executable, 64)
    ids = tuple(range(9))
    executable.errors["result"] = RuntimeError("gone")
    first, second = engine.submit(Request(ids, 9)), engine.submit(Request((*ids, 1), 9))
    with pytest.raises(RuntimeError, match="gone"):
        list(engine.run(first))
    assert [event.token for event in engine.run(second)] == answer((*ids, 1), 9)


def test_room_that_sharing_makes_is_seen() -> None:
    """A prompt that found too few pages is looked at again when those of another like it can be shared."""
    executable = toy("paged", pages=14)
    engine = Engine(executable, 64)
    ids = tuple(number % VOCAB for number in range(32))
    first, second = engine.submit(Request(ids, 20)), engine.submit(Request(ids, 2))
    list(engine.run(second))
    assert second.generated == answer(ids, 2) and first.finish is None
    list(engine.run(first))
    assert first.generated == answer(ids, 20)


def test_conversations_that_share_their_first_tokens_keep_their_slots() -> None:
    executable = ToyExecutable(CacheShape("slots", 64, 4), StepLimits(16, 4, mixed=False, max_prefills=1))
    engine = Engine(executable, 64)
    texts, held = [(0, 1, *(start,) * 12) for start in (5, 7)], dict[int, tuple[int, ...]]()
    for turn in range(4):
        for place, text in enumerate(texts):
            sequence = ask(engine, text, new=3)
            assert sequence.reused == max((alike(text, rows) for rows in held.values()), default=0)
            assert not turn or sequence.reused >= len(text) - 2, "the other conversation took its slot"
            held[place] = sequence.tokens[:-1]
            texts[place] = (*sequence.tokens[:-1], 9, 9)


def alike(text: Sequence[int], rows: Sequence[int]) -> int:
    """How many tokens of `text` are there already; its last one is always computed, for its logits."""
    return common(items(list(text[:-1])), items(list(rows)))


def test_how_much_was_cached_is_said_of_the_first_admission() -> None:
    executable = ToyExecutable(CacheShape("paged", 4, 6), StepLimits(16, 3))
    engine = Engine(executable, 24)
    sequences = [engine.submit(Request((start, 1, 2, 3), 14)) for start in (4, 5, 6)]
    list(engine.run(*sequences))
    assert [each.cached for each in sequences] == [0, 0, 0]
    assert any(each.reused for each in sequences), "none was admitted anew"


def test_a_namespace_without_a_page_is_forgotten() -> None:
    engine = Engine(toy("paged"), 64)
    for number in range(20):
        engine.cancel(engine.submit(Request((1, 2, 3), 4, namespace=str(number).encode())))
        sequence = engine.submit(Request((1, 2, 3), 4, namespace=str(number).encode()))
        engine.step()
        engine.cancel(sequence)
    rows = engine._scheduler.rows
    assert isinstance(rows, PagedRows) and len(rows._tree._roots) == len(rows._tree._nodes) == 20


Texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=12)


def items(text: list[int]) -> np.ndarray:
    return np.array(text, np.int32).view("V4")


@settings(max_examples=200)
@given(Texts, st.integers(1, 4), st.lists(st.integers(0, 2), max_size=14))
def test_a_tree_finds_the_longest_beginning(texts: list[list[int]], size: int, wanted: list[int]) -> None:
    """Beside a list of what each page holds, in the order in which pages were added."""
    tree, held, page = PrefixTree(size), dict[int, tuple[int, ...]](), 0
    for text in texts:
        pages = list(range(page, page + -(-len(text) // size)))
        page += len(pages)
        tree.add(b"", items(text), pages)
        for place, number in enumerate(pages):
            if number in tree:
                held[number] = tuple(text[: (place + 1) * size])
    found, partly = tree.find(b"", items(wanted))
    for place, number in enumerate(found):
        assert held[number] == tuple(wanted[: (place + 1) * size])
    start = len(found) * size
    best = max(
        (common(items(list(text[start:])), items(wanted[start:])) for text in held.values()
         if text[:start] == tuple(wanted[:start]) and start < len(text) <= start + size),
        default=0,
    )  # fmt: skip
    assert (partly.rows if partly else 0) == best
    if partly:
        assert held[partly.page][: start + partly.rows] == tuple(wanted[: start + partly.rows])
        assert partly == Partly(partly.page, best, len(held[partly.page]) == start + best)
    for number in list(held):
        if number in tree:
            for gone in tree.drop(number):
                assert held.pop(gone)[: len(held.get(number, ()))] == held.get(number, ())
    assert not held and tree.find(b"", items(wanted)) == ([], None)


def test_the_toy_tells_contexts_apart() -> None:
    assert len({answer((first, *(0,) * 8), 4)[0] for first in range(VOCAB)}) > 5
