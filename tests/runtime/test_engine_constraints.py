"""Sequences whose tokens a constraint chooses among: the same in whatever company, and whatever becomes of them."""

from __future__ import annotations

import pytest

from ernie_rt.contract import CacheShape, StepLimits
from ernie_rt.errors import ErnieRtError, OptionError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import SamplingParams
from support.constraints import Broken, OneOf
from support.pages import admitted, free_pages
from support.toy import ToyExecutable, answer

TEXTS = frozenset({(1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 9, 9, 9, 9, 9, 9, 9), (5, 5), (5, 5, 1, 1, 1, 1, 1, 1)})
STOP = 12


def toy(ahead: int = 0, pages: int = 60, drafts: int = 0) -> ToyExecutable:
    return ToyExecutable(CacheShape("paged", 4, pages), StepLimits(16, 4, True, max_drafts=drafts), ahead=ahead)


def guess(sequence: SequenceState, most: int) -> list[int]:
    return [1, 2, 3][:most] if not sequence.generated else [2, 3, 4][:most]


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("pages", [60, 6])
@pytest.mark.parametrize("ahead", [0, 1])
def test_many_sequences_of_one_constraint(ahead: int, pages: int, drafts: int) -> None:
    """Each has a state of its own, also where it is computed anew; drafts that do not fit are rejected."""
    engine = Engine(toy(ahead, pages, drafts), 40, drafter=guess if drafts else None)
    constraint = OneOf(TEXTS)
    sequences = [
        engine.submit(Request((4, n), 12, frozenset({STOP}), sampling=SamplingParams(temperature=1, seed=n),
                              constraint=constraint))
        for n in range(8)
    ]  # fmt: skip
    free = engine.submit(Request((1, 2, 3), 12))
    list(engine.run(*sequences, free))
    said = [tuple(token for token in sequence.generated if token != STOP) for sequence in sequences]
    assert set(said) <= TEXTS and len(set(said)) > 1
    assert all(sequence.finish == "stop" for sequence in sequences)
    assert free.generated == answer((1, 2, 3), 12)
    assert len(constraint.started) == 8 and sorted(state.said for state in constraint.started) == sorted(said)
    assert free_pages(engine) == pages
    assert pages == 60 or drafts or admitted(engine) > 9, "some sequences gave way and were admitted anew"


def test_a_text_that_is_complete_ends_its_sequence() -> None:
    """With its last token: no token is needed that would end it, and `min_new_tokens` holds off none."""
    engine = Engine(toy(), 40)
    for stops in (frozenset[int](), frozenset({STOP})):
        params = SamplingParams(min_new_tokens=20)
        sequence = engine.submit(Request((4,), 30, stops, sampling=params, constraint=OneOf(frozenset({(3, 3, 4)}))))
        events = list(engine.run(sequence))
        assert [(event.token, event.finish) for event in events] == [(3, None), (3, None), (4, "stop")]


def test_length_cuts_a_text() -> None:
    engine = Engine(toy(), 40)
    sequence = engine.submit(Request((4,), 2, constraint=OneOf(frozenset({(3, 3, 4)}))))
    assert [event.finish for event in engine.run(sequence)] == [None, "length"]


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("where", ["mask", "accept", "may_end", "complete"])
def test_an_error_ends_its_sequence_alone(where: str, drafts: int) -> None:
    engine = Engine(toy(drafts=drafts), 40, drafter=guess if drafts else None)
    other = engine.submit(Request((1, 2, 3), 9))
    failing = engine.submit(Request((4, 5), 9, constraint=Broken(where, 3)))
    with pytest.raises(OptionError, match="the constraint fails"):
        list(engine.run(failing))
    assert failing.finish == "error" and len(failing.generated) <= 3
    assert [event.token for event in engine.run(other)] == answer((1, 2, 3), 9)
    assert free_pages(engine) == 60


def test_a_constraint_that_allows_nothing_is_an_error_of_the_request() -> None:
    engine = Engine(toy(), 40)
    sequence = engine.submit(Request((4,), 9, constraint=OneOf(frozenset())))
    with pytest.raises(ErnieRtError, match="no token is left"):
        list(engine.run(sequence))
