"""Sequences that ask for more than the largest logit: the same tokens in whatever company and whatever steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.contract import LAST_DRAWN, CacheShape, Step, StepLimits
from ernie_rt.errors import BackendError, OptionError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Event, Request
from ernie_rt.sampling.params import GREEDY, SamplingParams
from support.pages import admitted, free_pages
from support.sampling import sampled_answer
from support.toy import VOCAB, ToyExecutable, answer

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9, 10, 11), (12, 0), (1, 2, 3)]
PARAMS = [
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.7, seed=2, top_p=0.8, repetition_penalty=1.4, frequency_penalty=0.5),
    GREEDY,
    SamplingParams(repetition_penalty=1.5, presence_penalty=0.3),
    SamplingParams(temperature=1.0, seed=1),
]
NEW = [14, 9, 20, 12, 14]


def toy(kind: str, *, ahead: int, pages: int = 60) -> ToyExecutable:
    mixed = kind == "paged"
    cache = CacheShape("paged", 4, pages) if kind == "paged" else CacheShape("slots", 40, 4)
    return ToyExecutable(cache, StepLimits(16, 4, mixed), ahead=ahead)


def expected(which: int) -> list[int]:
    if PARAMS[which].plain:
        return answer(PROMPTS[which], NEW[which])
    return sampled_answer(PROMPTS[which], NEW[which], PARAMS[which])


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots", "few pages"])
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_alone_in_a_batch_in_chunks_and_computed_anew(kind: str, ahead: int, chunk: int | None) -> None:
    few = kind == "few pages"
    executable = toy("paged" if few else kind, ahead=ahead, pages=10 if few else 60)
    engine = Engine(executable, 40)
    sequences = [
        engine.submit(Request(ids, new, chunk=chunk, sampling=params))
        for ids, new, params in zip(PROMPTS, NEW, PARAMS, strict=True)
    ]
    list(engine.run(*sequences))
    for which, sequence in enumerate(sequences):
        assert sequence.generated == expected(which)
        alone = Engine(toy("paged", ahead=ahead), 40)
        single = alone.submit(Request(PROMPTS[which], NEW[which], sampling=PARAMS[which]))
        list(alone.run(single))
        assert single.generated == sequence.generated
    assert sequences[0].generated == sequences[4].generated
    if few:
        assert admitted(engine) > len(PROMPTS), "some sequences gave way and were admitted anew"


def test_only_what_a_device_can_draw_runs_ahead_and_only_the_logits_of_others_are_fetched() -> None:
    executable = toy("paged", ahead=1)
    engine = Engine(executable, 40)
    chosen = (GREEDY, PARAMS[0], PARAMS[3])  # the last one is penalised
    sequences = [engine.submit(Request(PROMPTS[0], 12, sampling=params)) for params in chosen]
    list(engine.run(*sequences))
    assert sequences[0].generated == answer(PROMPTS[0], 12)
    for sequence, params in zip(sequences[1:], chosen[1:], strict=True):
        assert sequence.generated == sampled_answer(PROMPTS[0], 12, params)
    for step in executable.steps:
        assert step.fetch is not None and step.draws is not None
        drawn, hosted = (np.flatnonzero(step.draws.known > 0), np.flatnonzero(step.draws.known == 0))
        if len(step.rows) == len(step.past):
            assert step.fetch.tolist() == hosted.tolist()
        assert not (step.ids[step.query_start[hosted]] == LAST_DRAWN).any()
        assert len(drawn) <= 2 and len(hosted) <= 1
    assert sum((step.ids == LAST_DRAWN).any() for step in executable.steps) > 10
    executable = toy("paged", ahead=1)
    engine = Engine(executable, 40)
    list(engine.run(engine.submit(Request(PROMPTS[0], 5, sampling=PARAMS[3]))))
    assert len(executable.steps) == 5 and not any((step.ids == LAST_DRAWN).any() for step in executable.steps)


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_caller_may_end_a_sequence_by_its_tokens(ahead: int) -> None:
    for params, told in ((GREEDY, answer(PROMPTS[0], 10)), (PARAMS[0], sampled_answer(PROMPTS[0], 10, PARAMS[0]))):
        heard: list[int] = []

        def ends(token: int, heard: list[int] = heard) -> bool:
            heard.append(token)
            return len(heard) == 4

        engine = Engine(toy("paged", ahead=ahead), 40)
        events = list(engine.run(engine.submit(Request(PROMPTS[0], 10, sampling=params), ends)))
        assert [event.token for event in events] == heard == told[:4]
        assert [event.finish for event in events] == [None] * 3 + ["stop"]


def test_stop_ids_wait_for_the_first_tokens() -> None:
    stops = frozenset(range(0, VOCAB, 2))
    engine = Engine(toy("paged", ahead=1), 40)
    for count in (0, 1, 5):
        params = SamplingParams(temperature=1.0, seed=9, min_new_tokens=count)
        sequence = engine.submit(Request(PROMPTS[0], 30, stops, sampling=params))
        list(engine.run(sequence))
        assert sequence.generated == sampled_answer(PROMPTS[0], 30, params, sorted(stops))
        assert sequence.finish == "stop" and len(sequence.generated) > count
        assert not stops & set(sequence.generated[:count])


def test_logprobs_come_with_their_tokens() -> None:
    engine = Engine(toy("paged", ahead=1), 40)
    sequence = engine.submit(Request(PROMPTS[0], 6, sampling=SamplingParams(logprobs=1)))
    events = list(engine.run(sequence))
    best = 1 - np.log(VOCAB - 1 + np.e)
    assert sequence.generated == answer(PROMPTS[0], 6)
    for event in events:
        assert event.logprobs is not None and event.logprobs.chosen == pytest.approx(best)
        assert [id for id, _ in event.logprobs.top] == [event.token]
    plain = engine.submit(Request(PROMPTS[0], 2))
    assert [event.logprobs for event in engine.run(plain)] == [None, None]


DOOMED: Any = SamplingParams(allowed_ids=(3,), bad_words=((3, 3, 3),))
"""The third token is one too many."""


class NanToyExecutable(ToyExecutable):
    """The logits of sequences that have more than 6 tokens, the first of them 4, are NaN."""

    def spoil(self, step: Step, logits: np.ndarray) -> None:
        for place, row in enumerate(step.rows):
            own = self._rows[step.context[step.context_sequence == step.sequence[row]]]
            if len(own) > 6 and own[0] == 4:
                logits[place, 3] = np.nan


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_an_error_ends_its_sequence_alone(kind: str, ahead: int) -> None:
    whole = toy(kind, ahead=ahead)
    executable = NanToyExecutable(whole.cache, whole.admits, ahead=ahead)
    engine = Engine(executable, 40)
    told = 0

    def ends(token: int) -> bool:
        nonlocal told
        told += 1
        if told == 5:
            raise RuntimeError("not this one")
        return False

    well = [engine.submit(Request(PROMPTS[which], NEW[which], sampling=PARAMS[which])) for which in (0, 2)]
    ill = {
        OptionError: (engine.submit(Request(PROMPTS[3], 9, sampling=DOOMED)), 2),
        RuntimeError: (engine.submit(Request(PROMPTS[2], 9), ends), 4),
        BackendError: (engine.submit(Request(PROMPTS[1], 12, sampling=SamplingParams(temperature=1, seed=5))), 6),
    }
    runs = [engine.run(sequence) for sequence in well]
    begun = [next(run) for run in runs]
    for error, (sequence, count) in ill.items():
        events = []
        with pytest.raises(error) as caught:
            events.extend(event.token for event in engine.run(sequence))
        assert caught.value is sequence.error
        assert sequence.finish == "error" and len(sequence.generated) == count
        assert sequence.seat < 0
    for which, run, first in zip((0, 2), runs, begun, strict=True):
        assert [first.token, *(event.token for event in run)] == expected(which)
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize("ahead", [0, 1])
def test_an_error_in_a_batch_is_raised_and_ends_the_batch(ahead: int) -> None:
    executable = toy("paged", ahead=ahead)
    engine = Engine(executable, 40)
    stays = engine.submit(Request(PROMPTS[2], 12))
    batch = [
        engine.submit(Request(ids, 12, sampling=params))
        for ids, params in zip(PROMPTS, [GREEDY, DOOMED, GREEDY], strict=False)
    ]
    told: list[Event] = []
    with pytest.raises(OptionError, match="no token is left to choose"):
        told.extend(engine.run(*batch))
    assert [sequence.finish for sequence in batch] == ["cancelled", "error", "cancelled"]
    assert [event.token for event in told if event.sequence is batch[1]] == [3, 3]
    assert [event.token for event in engine.run(stays)] == answer(PROMPTS[2], 12)
    assert free_pages(engine) == executable.cache.pages


def test_a_loop_of_steps_sees_the_error_in_the_events() -> None:
    engine = Engine(toy("paged", ahead=0), 40)
    sequence = engine.submit(Request(PROMPTS[3], 9, sampling=DOOMED))
    for _ in range(3):
        engine.step()
    events = list(sequence.events)
    assert [(event.token, event.finish) for event in events] == [(3, None), (3, None), (None, "error")]
    assert isinstance(sequence.error, OptionError)
    engine.step()
    assert list(sequence.events) == events


@pytest.mark.parametrize("ahead", [0, 1])
def test_ids_beyond_the_tokenizer_are_not_chosen(ahead: int) -> None:
    for params in (GREEDY, PARAMS[0], PARAMS[3]):
        engine = Engine(toy("paged", ahead=ahead), 40)
        sequence = engine.submit(Request(PROMPTS[0], 30, sampling=params, known_ids=4))
        list(engine.run(sequence))
        assert len(sequence.generated) == 30 and max(sequence.generated) < 4
