"""Constraints in the sampler: masks against the specification, several made into one, and what goes wrong with one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.errors import OptionError
from ernie_rt.sampling.constraint import Constraint, Mask
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.phases import Anything, Either, Fixed, Phases
from ernie_rt.sampling.sampler import Sampled, sample, sample_rows
from ernie_rt.sampling.state import SamplerState
from support.constraints import Broken, OneOf
from support.sampling import specified

VOCAB = 12
TEXTS = st.lists(st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple), min_size=1, max_size=5, unique=True)


def texts_of(constraint: Constraint, length: int) -> set[tuple[int, ...]]:
    """All texts of at most so many tokens that a constraint allows, by trying every token."""
    found = set()

    def grow(text: tuple[int, ...]) -> None:
        state = constraint.start()
        for token in text:
            state.accept(token)
        if state.may_end:
            found.add(text)
        mask = np.ones(VOCAB, bool) if state.mask() is None else state.mask()
        assert mask is not None and state.complete == (state.may_end and not mask.any())
        for token in np.flatnonzero(mask).tolist() if len(text) < length else ():
            grow((*text, token))

    grow(())
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TEXTS, TEXTS, st.booleans())
def test_one_after_another_and_one_or_another(
    first: list[tuple[int, ...]], then: list[tuple[int, ...]], repeats: bool
) -> None:
    """Whatever they are made of, what they allow is what the sets of their texts say: ambiguous beginnings too."""
    one, other = OneOf(frozenset(first)), OneOf(frozenset(then))
    assert texts_of(Either((one, other)), 4) == {text for text in (*first, *then) if len(text) <= 4}
    joined = {(*a, *b) for a, b in itertools.product(first, then)}
    if repeats:
        for _ in range(5):
            joined |= {(*a, *b) for a, b in itertools.product(joined, joined) if len(a) + len(b) <= 5}
    assert texts_of(Phases((one, other), repeats), 5) == {text for text in joined if len(text) <= 5}


def test_fixed_and_anything() -> None:
    assert texts_of(Fixed((3, 1)), 4) == {(3, 1)}
    assert len(texts_of(Anything(), 2)) == 1 + VOCAB + VOCAB**2
    assert texts_of(Phases((Fixed((1,)), Fixed(()), Fixed((2, 2)))), 4) == {(1, 2, 2)}
    nested = Phases((Fixed((9,)), Phases((Fixed((1,)), Fixed((2,))), repeats=True)))
    assert texts_of(nested, 6) == {(9, 1, 2), (9, 1, 2, 1, 2)}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_a_mask_is_as_allowed_ids_would_be(data: st.DataObject) -> None:
    """Beside every other option: the token is that of the specification, with the allowed ids and the stop ids."""
    row = np.array(data.draw(st.lists(st.integers(-50, 50), min_size=VOCAB, max_size=VOCAB)), np.float32) / 8
    ids = st.integers(0, VOCAB - 1)
    text = data.draw(st.lists(ids, max_size=3))
    following = data.draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    may_end = data.draw(st.booleans())
    stops = data.draw(st.lists(ids.filter(lambda id: id not in text), max_size=2, unique=True))
    texts = {(*text, token) for token in following} | ({tuple(text)} if may_end else set())
    options = {
        "temperature": data.draw(st.sampled_from([0, 0.7])), "top_p": data.draw(st.sampled_from([1, 0.6])),
        "logit_bias": data.draw(st.dictionaries(ids, st.floats(-20, 20, width=32), max_size=3)), "seed": 5,
        "min_new_tokens": data.draw(st.sampled_from([0, 2])),
        "repetition_penalty": data.draw(st.sampled_from([1, 1.4])),
        "bad_words": data.draw(st.lists(ids, max_size=2).map(lambda bad: tuple((id,) for id in bad))),
    }  # fmt: skip
    state = SamplerState(SamplingParams(**options), [1, 2], stops, VOCAB, OneOf(frozenset(texts)))
    for token in text:
        state.accept(token)
    allowed = {*following, *stops} if may_end else {*following}
    params = SamplingParams(**options, allowed_ids=tuple(allowed))
    bad = {word[0] for word in params.bad_words} | (set(stops) if len(text) < params.min_new_tokens else set())
    if allowed - bad:
        assert sample(row, state).token == specified(row, params, [1, 2], text, stops, VOCAB)
    else:
        with pytest.raises(OptionError, match="no token is left"):
            sample(row, state)


def test_a_token_that_ends_is_not_told_and_not_allowed_within_the_text() -> None:
    row = np.arange(VOCAB, dtype=np.float32)
    free = OneOf(frozenset({(4,), (4, 5)}))
    state = SamplerState(SamplingParams(), [0], [11], None, free)
    assert sample(row, state).token == 4
    state.accept(4)
    assert state.may_end and not state.complete and sample(row, state).token == 11
    state.accept(11)
    assert free.started[0].said == (4,)
    unended = SamplerState(SamplingParams(), [0], [11], None, Phases((Endless(), Fixed((1,)))))
    assert sample(row, unended).token == 10


class Endless(Anything):
    """Any tokens, and they never may end."""

    may_end = False  # type: ignore[misc]


def test_no_device_draws_what_is_constrained() -> None:
    assert SamplerState(SamplingParams(), [0]).drawable
    assert not SamplerState(SamplingParams(), [0], constraint=Anything()).drawable


@pytest.mark.parametrize("where", ["mask", "may_end"])
def test_what_a_constraint_raises_is_its_rows_alone(where: str) -> None:
    rows = np.zeros((3, VOCAB), np.float32)
    rows[:, 7] = 1
    states = [SamplerState(SamplingParams(), [0], [3], None, Broken(where) if n == 1 else None) for n in range(3)]
    one, failed, other = sample_rows(rows, states)
    assert one == other == Sampled(7)
    assert isinstance(failed, OptionError) and "the constraint fails; found ValueError: not today" in str(failed)


@pytest.mark.parametrize("mask", [[True], np.zeros(3), np.zeros((2, 3), bool)], ids=["list", "floats", "rows"])
def test_a_mask_that_is_none(mask: Mask) -> None:
    class Wrong(Anything):
        def mask(self) -> Mask | None:
            return mask

    with pytest.raises(OptionError, match="the constraint gives no mask"):
        sample(np.zeros(VOCAB, np.float32), SamplerState(SamplingParams(), [0], constraint=Wrong()))
