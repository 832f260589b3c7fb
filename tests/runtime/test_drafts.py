"""Drafts that are verified: whatever is guessed, the answer is the same, and right guesses save steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ernie_rt.contract import NO_NUMBER, CacheShape, Draws, Step, StepLimits
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import GREEDY, SamplingParams
from support.pages import free_pages
from support.sampling import sampled_answer
from support.toy import VOCAB, ToyExecutable, answer

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9, 10, 11)]
DRAWN = SamplingParams(temperature=1.0, seed=3)
PENALISED = SamplingParams(temperature=0.7, seed=2, top_p=0.8, repetition_penalty=1.4, frequency_penalty=0.5)
Drafter = Callable[[SequenceState, int], list[int]]


def toy(kind: str, ahead: int) -> ToyExecutable:
    cache = CacheShape("paged", 4, 60) if kind == "paged" else CacheShape("slots", 40, 4)
    return ToyExecutable(cache, StepLimits(16, 4, kind == "paged", max_drafts=3), ahead=ahead)


def right(sequence: SequenceState, most: int) -> list[int]:
    return answer(sequence.tokens, most)


def wrong(sequence: SequenceState, most: int) -> list[int]:
    return [(token + 1) % VOCAB for token in right(sequence, most)]


def at_times(sequence: SequenceState, most: int) -> list[int]:
    """Right up to a token that moves about; now and then none at all."""
    drafts = right(sequence, most)[: len(sequence.tokens) % 4]
    return [*drafts[:-1], (drafts[-1] + len(sequence.tokens) % 2) % VOCAB] if drafts else []


@pytest.mark.parametrize("drafter", [right, wrong, at_times])
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_the_answer_is_the_same(kind: str, ahead: int, drafter: Drafter) -> None:
    executable = toy(kind, ahead)
    engine = Engine(executable, 40, drafter=drafter)
    asked = [(ids, params) for ids in PROMPTS for params in (GREEDY, DRAWN, PENALISED)]
    sequences = [engine.submit(Request(ids, 20, sampling=params)) for ids, params in asked]
    list(engine.run(*sequences))
    for (ids, params), sequence in zip(asked, sequences, strict=True):
        expected = answer(ids, 20) if params is GREEDY else sampled_answer(ids, 20, params)
        assert sequence.generated == expected
    drafts = [step.drafts for step in executable.steps if step.drafts is not None]
    assert max(int(each.max()) for each in drafts) == 3
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize("ahead", [0, 1])
def test_right_guesses_save_steps(ahead: int) -> None:
    counts = {}
    for drafter in (right, wrong):
        executable = toy("paged", ahead)
        engine = Engine(executable, 40, drafter=drafter)
        list(engine.run(engine.submit(Request(PROMPTS[0], 21))))
        counts[drafter] = len(executable.steps)
    assert counts == {right: 1 + 5, wrong: 21}  # four tokens a step


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_stop_among_the_guesses_is_the_last_token(ahead: int) -> None:
    said = answer(PROMPTS[0], 20)
    for place in range(1, 9):
        stop = said[place]
        engine = Engine(toy("paged", ahead), 40, drafter=right)
        sequence = engine.submit(Request(PROMPTS[0], 20, frozenset({stop})))
        events = [event.token for event in engine.run(sequence)]
        assert events == sequence.generated == said[: said.index(stop) + 1] and sequence.finish == "stop"


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_was_rejected_is_not_found_by_others(ahead: int) -> None:
    engine = Engine(toy("paged", ahead), 40, drafter=wrong)
    first = engine.submit(Request(PROMPTS[2], 9))
    list(engine.run(first))
    again = engine.submit(Request((*first.tokens, 1), 5))
    list(engine.run(again))
    assert again.reused == len(first.tokens) - 1 and again.generated == answer((*first.tokens, 1), 5)


def test_no_draft_leads_beyond_the_answer_or_the_step() -> None:
    executable = ToyExecutable(CacheShape("paged", 4, 60), StepLimits(6, 4, max_drafts=3))
    engine = Engine(executable, 12, drafter=right)
    sequences = [engine.submit(Request(ids, 5)) for ids in PROMPTS]
    list(engine.run(*sequences))
    assert [each.generated for each in sequences] == [answer(ids, 5) for ids in PROMPTS]
    assert all(step.lengths.max() <= 12 and len(step.ids) <= 6 for step in executable.steps)


def test_rows_and_counts_of_a_step() -> None:
    """Three sequences: a chunk of a prompt, a decode with two drafts of which one is right, a decode."""
    step = Step(
        ids=np.array([10, 11, 20, 21, 22, 30], np.int32),
        query_start=np.array([0, 2, 5, 6], np.int32),
        past=np.array([0, 7, 3], np.int32),
        tables=np.zeros((3, 1), np.int32),
        page_size=64,
        seats=np.arange(3, dtype=np.int32),
        rows=np.array([2, 3, 4, 5], np.int32),
        draws=Draws.greedy(3, 99),
        drafts=np.array([0, 2, 0], np.int32),
    )
    assert step.draws is not None
    step.draws.known[0] = 0
    where, sequence, ahead = step.drawn_rows
    assert (where.tolist(), sequence.tolist(), ahead.tolist()) == ([0, 1, 2, 3], [1, 1, 1, 2], [0, 1, 2, 0])
    tokens, counts = step.verified(np.array([21, 77, 78, 40], np.int32))
    assert tokens.tolist() == [[NO_NUMBER] * 3, [21, 77, 78], [40, NO_NUMBER, NO_NUMBER]]
    assert counts.tolist() == [0, 2, 1]


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_drafter_that_raises_ends_the_sequence_that_it_was_asked_about(ahead: int) -> None:
    def shaky(sequence: SequenceState, most: int) -> list[int]:
        if sequence.request.ids == PROMPTS[0] and len(sequence.tokens) == 6:
            raise RuntimeError("no idea")
        return right(sequence, most)[:1]

    engine = Engine(toy("paged", ahead), 40, drafter=shaky)
    one, other = (engine.submit(Request(ids, 12)) for ids in PROMPTS[:2])
    assert [event.token for event in engine.run(other)] == answer(PROMPTS[1], 12)
    with pytest.raises(RuntimeError, match="no idea"):
        list(engine.run(one))
    assert one.generated == answer(PROMPTS[0], 12)[: len(one.generated)]


def test_what_keeps_values_has_no_drafts() -> None:
    executable = toy("paged", 0)
    engine = Engine(executable, 40, drafter=right)
    sequence = engine.submit(Request(PROMPTS[0], 9, taps=True))
    list(engine.run(sequence))
    assert all(step.drafts is None for step in executable.steps) and sequence.generated == answer(PROMPTS[0], 9)
