"""Rows behind a changed part of a prompt are taken by those alone who ask for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.runtime import rows, slots
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.prefix import PrefixTree
from ernie_rt.runtime.rows import PagedRows
from ernie_rt.runtime.sequence import Request, SequenceState
from support.pages import free_pages
from support.toy import VOCAB, DeepToyExecutable, ToyExecutable, answer

SIZE = 4
ADMITS = StepLimits(16, 3)
EXAMPLES = 12
KINDS = pytest.mark.parametrize("kind", ["paged", "slots"])


@pytest.fixture(autouse=True)
def few_tokens_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, slots):
        monkeypatch.setattr(module, "LEAST_ANYWHERE", SIZE)


def toy(kind: str, of: type[ToyExecutable] = ToyExecutable, *, ahead: int = 0) -> ToyExecutable:
    cache = CacheShape("paged", SIZE, 60) if kind == "paged" else CacheShape("slots", 64, 4)
    return of(cache, ADMITS if kind == "paged" else replace(ADMITS, mixed=False, max_prefills=1), ahead=ahead)


def ask(engine: Engine, ids: tuple[int, ...], new: int = 3, *, asks: bool = True, space: bytes = b"") -> SequenceState:
    sequence = engine.submit(Request(ids, new, namespace=space, reuse_after_change=asks))
    list(engine.run(sequence))
    assert sequence.error is None and len(sequence.generated) == new
    return sequence


HEAD, OTHER = (1, 2, 3, 4, 5, 6), (1, 2, 9, 9, 9, 6)
BODY = tuple(number % VOCAB for number in range(7, 29))


@KINDS
@pytest.mark.parametrize("ahead", [0, 1])
def test_what_differs_is_computed(kind: str, ahead: int) -> None:
    """The toy's rows are tokens, so rows of the right tokens give the right answer."""
    executable = toy(kind, ahead=ahead)
    engine = Engine(executable, 64)
    ask(engine, HEAD + BODY)
    before = len(executable.steps)
    sequence = ask(engine, OTHER + BODY + (0, 1))
    assert sequence.generated == answer(OTHER + BODY + (0, 1), 3)
    assert sequence.cached == 2
    entered = sum(len(step.ids) for step in executable.steps[before:])
    assert sequence.cached_after_change == 30 - 2 - (entered - 2) >= 20
    assert sequence.holes[0][0] == (8 if kind == "paged" else 5)
    assert sequence.not_cached == "the first difference from what is in the cache is at token 3 of 30"
    assert free_pages(engine) == executable.cache.pages


@KINDS
def test_rows_behind_a_change_are_those_of_the_former_text(kind: str) -> None:
    engine = Engine(toy(kind, DeepToyExecutable), 64)
    ask(engine, HEAD + BODY)
    assert ask(engine, OTHER + BODY + (0,)).generated == answer(HEAD + BODY + (0,), 3)
    assert ask(engine, OTHER + BODY + (0,), asks=False).generated == answer(OTHER + BODY + (0,), 3)


@KINDS
def test_nobody_else_finds_what_follows_from_them(kind: str) -> None:
    engine = Engine(toy(kind, DeepToyExecutable), 64)
    ask(engine, HEAD + BODY)
    approximate = ask(engine, OTHER + BODY + (0, 5, 5), new=9)
    assert approximate.cached_after_change
    text = tuple(approximate.tokens)
    exact = ask(engine, text, asks=False)
    assert exact.generated == answer(text, 3) and exact.reused <= approximate.holes[0][0]
    again = ask(engine, (*text, 1))
    assert again.cached_after_change or again.reused > len(OTHER + BODY)  # what was computed without a change is best
    other = ask(engine, HEAD + BODY, space=b"another")
    assert other.cached == other.cached_after_change == 0
    for start in range(0, len(text), SIZE):
        assert ask(engine, text[start:], asks=False).generated == answer(text[start:], 3)


def test_pages_whose_former_text_has_gone_are_found_by_nobody_else() -> None:
    executable = DeepToyExecutable(CacheShape("paged", SIZE, 17), ADMITS)
    engine = Engine(executable, 64)
    ask(engine, HEAD + BODY)
    text = OTHER + BODY + (0, 5)
    approximate = engine.submit(Request(text, 9, reuse_after_change=True))
    run = engine.run(approximate)
    next(run)
    assert approximate.holes
    large = tuple(number % 7 for number in range(34))
    assert ask(engine, large, asks=False, new=2).generated == answer(large, 2)
    kept = engine._scheduler.rows
    assert isinstance(kept, PagedRows)
    assert kept.tables[approximate.seat, approximate.holes[0][0] // SIZE] not in kept._tree, "the former text is there"
    list(run)
    assert ask(engine, tuple(approximate.tokens), asks=False).generated == answer(approximate.tokens, 3)


@KINDS
def test_a_conversation_goes_on_behind_a_change(kind: str) -> None:
    """What was computed behind a change is found by the next turn, whose first part changes again."""
    executable = toy(kind)
    engine = Engine(executable, 64)
    text = BODY
    for turn in range(6):
        head = (turn, 8, turn, 2)
        sequence = ask(engine, head + text)
        assert sequence.generated == answer(head + text, 3)
        missed = len(head + text) - sequence.cached_after_change - (sequence.cached or 0)
        assert not turn or missed <= len(head) + 3 + SIZE  # the last token of an answer never enters
        text = (*text, *sequence.generated, turn, turn)


@KINDS
def test_another_conversation_in_between_hides_nothing(kind: str) -> None:
    engine = Engine(toy(kind), 64)
    ask(engine, HEAD + BODY)
    ask(engine, HEAD[:2] + BODY[::-1])
    assert ask(engine, OTHER + BODY).cached_after_change >= 16


@KINDS
def test_without_a_match_the_reason_says_so(kind: str) -> None:
    engine = Engine(toy(kind), 64)
    assert ask(engine, HEAD + BODY, asks=False).not_cached == "nothing in the cache begins like the prompt"
    shifted = ask(engine, (0, *HEAD, *BODY))
    assert shifted.not_cached == (
        "nothing in the cache begins like the prompt, and too little of what comes after it stands where it stood"
    )
    assert ask(engine, (0, *HEAD, *BODY)).not_cached == ""


@KINDS
def test_short_runs_are_not_worth_a_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, slots):
        monkeypatch.setattr(module, "LEAST_ANYWHERE", 24)
    engine = Engine(toy(kind), 64)
    ask(engine, HEAD + BODY)
    assert ask(engine, OTHER + BODY).holes == ()


Part = st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE).map(tuple)
Texts = st.lists(
    st.tuples(st.lists(Part, min_size=1, max_size=8), st.integers(0, 3), st.booleans()), min_size=2, max_size=9
)


@pytest.mark.parametrize("deep", [False, True])
@KINDS
@settings(max_examples=EXAMPLES)
@given(Texts)
def test_who_does_not_ask_gets_the_exact_answer(
    kind: str, deep: bool, texts: list[tuple[list[tuple[int, ...]], int, bool]]
) -> None:
    """And of a toy whose rows follow from their own token alone everybody does, whatever is skipped."""
    executable = toy(kind, DeepToyExecutable if deep else ToyExecutable)
    engine = Engine(executable, 64)
    for parts, more, asks in texts:
        ids = (*(number for part in parts for number in part), *range(more))
        sequence = ask(engine, ids, asks=asks)
        if not deep or not asks or not sequence.holes:
            assert sequence.generated == answer(ids, 3)
        assert asks or not sequence.holes
    assert free_pages(engine) == executable.cache.pages


@settings(max_examples=EXAMPLES)
@given(Texts)
def test_several_at_once(texts: list[tuple[list[tuple[int, ...]], int, bool]]) -> None:
    for kind in ("paged", "slots"):
        engine = Engine(toy(kind), 64)
        asked = [(*(n for part in parts for n in part), *range(more)) for parts, more, _ in texts]
        sequences = [engine.submit(Request(ids, 3, reuse_after_change=True)) for ids in asked]
        list(engine.run(*sequences))
        assert [each.generated for each in sequences] == [answer(ids, 3) for ids in asked]
        assert free_pages(engine) == engine._scheduler.cache.pages


def test_a_page_that_gives_way_is_not_found_behind_a_change() -> None:
    tree = PrefixTree(SIZE)
    items = np.array(HEAD[:4] + BODY[:8], np.int32).view("V4")
    tree.add(b"", items, [0, 1, 2])
    assert tree.find_anywhere(b"", items, 1) == [(1, [1, 2])]
    tree.drop(2)
    assert tree.find_anywhere(b"", items, 1) == [(1, [1])]
    tree.drop(0)
    assert tree.find_anywhere(b"", items, 0) == [] and not tree._alike


def test_pages_computed_behind_a_change_are_forgotten_in_the_end() -> None:
    engine = Engine(toy("paged"), 64)
    for number in range(12):
        ask(engine, (number, *HEAD[1:], *BODY, number))
    kept = engine._scheduler.rows
    assert isinstance(kept, PagedRows)
    kept.forget()
    assert not kept._tree._roots and not kept._tree._alike and kept.pool.free == 60
