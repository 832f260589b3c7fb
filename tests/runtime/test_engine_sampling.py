"""Sequences that ask for more than the largest logit: the same tokens in whatever company and whatever steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.backend import LAST_SAMPLED, CacheShape, Step, StepLimits
from ernie_rt.errors import BackendError, OptionError
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Event, Request
from ernie_rt.sampling.params import GREEDY, SamplingParams
from support.pages import free_pages
from support.sampling import sampled_answer
from support.toy import VOCAB, ToyExecutable, ToyPending, answer

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9, 10, 11), (12, 0), (1, 2, 3)]
PARAMS = [
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.7, seed=2, top_p=0.8, repetition_penalty=1.4, frequency_penalty=0.5),
    GREEDY,
    SamplingParams(repetition_penalty=1.5, presence_penalty=0.3),
    SamplingParams(temperature=1.0, seed=1),
]
NEW = [14, 9, 20, 12, 14]


def toy(kind: str, *, samples: bool, pages: int = 60) -> ToyExecutable:
    mixed = kind == "paged"
    cache = CacheShape("paged", 4, pages) if kind == "paged" else CacheShape("slots", 40, 4)
    return ToyExecutable(cache, StepLimits(16, 4, mixed), samples=samples)


def expected(which: int) -> list[int]:
    if PARAMS[which].plain:
        return answer(PROMPTS[which], NEW[which])
    return sampled_answer(PROMPTS[which], NEW[which], PARAMS[which])


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("kind", ["paged", "slots", "few pages"])
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_alone_in_a_batch_in_chunks_and_computed_anew(kind: str, samples: bool, chunk: int | None) -> None:
    few = kind == "few pages"
    executable = toy("paged" if few else kind, samples=samples, pages=10 if few else 60)
    engine = Engine(executable, 40)
    sequences = [
        engine.submit(Request(ids, new, chunk=chunk, sampling=params))
        for ids, new, params in zip(PROMPTS, NEW, PARAMS, strict=True)
    ]
    list(engine.run(*sequences))
    for which, sequence in enumerate(sequences):
        assert sequence.generated == expected(which)
        alone = Engine(toy("paged", samples=samples), 40)
        single = alone.submit(Request(PROMPTS[which], NEW[which], sampling=PARAMS[which]))
        list(alone.run(single))
        assert single.generated == sequence.generated
    assert sequences[0].generated == sequences[4].generated
    begun = sum((step.past == 0).sum() for step in executable.steps)
    if few:
        assert begun > len(PROMPTS), "some sequences gave way and were computed anew"


def test_only_what_a_device_can_sample_runs_ahead() -> None:
    executable = toy("paged", samples=True)
    engine = Engine(executable, 40)
    plain, drawn = (engine.submit(Request(PROMPTS[0], 12, sampling=params)) for params in (GREEDY, PARAMS[0]))
    list(engine.run(plain, drawn))
    assert plain.generated == answer(PROMPTS[0], 12)
    assert drawn.generated == sampled_answer(PROMPTS[0], 12, PARAMS[0])
    both = [step for step in executable.steps if len(step.past) == 2]
    assert both and all(step.want_logits for step in both)
    for step in executable.steps:
        if not step.want_logits:
            assert len(step.past) == 1 and step.ids.tolist() == [LAST_SAMPLED]
    assert any(not step.want_logits for step in executable.steps)
    executable = toy("paged", samples=True)
    engine = Engine(executable, 40)
    list(engine.run(engine.submit(Request(PROMPTS[0], 5, sampling=PARAMS[0]))))
    assert len(executable.steps) == 5 and not any((step.ids == LAST_SAMPLED).any() for step in executable.steps)


@pytest.mark.parametrize("samples", [False, True])
def test_a_caller_may_end_a_sequence_by_its_tokens(samples: bool) -> None:
    for params, told in ((GREEDY, answer(PROMPTS[0], 10)), (PARAMS[0], sampled_answer(PROMPTS[0], 10, PARAMS[0]))):
        heard: list[int] = []

        def ends(token: int, heard: list[int] = heard) -> bool:
            heard.append(token)
            return len(heard) == 4

        engine = Engine(toy("paged", samples=samples), 40)
        events = list(engine.run(engine.submit(Request(PROMPTS[0], 10, sampling=params), ends)))
        assert [event.token for event in events] == heard == told[:4]
        assert [event.finish for event in events] == [None] * 3 + ["stop"]


def test_stop_ids_wait_for_the_first_tokens() -> None:
    stops = frozenset(range(0, VOCAB, 2))
    engine = Engine(toy("paged", samples=True), 40)
    for count in (0, 1, 5):
        params = SamplingParams(temperature=1.0, seed=9, min_new_tokens=count)
        sequence = engine.submit(Request(PROMPTS[0], 30, stops, sampling=params))
        list(engine.run(sequence))
        assert sequence.generated == sampled_answer(PROMPTS[0], 30, params, sorted(stops))
        assert sequence.finish == "stop" and len(sequence.generated) > count
        assert not stops & set(sequence.generated[:count])


def test_logprobs_come_with_their_tokens() -> None:
    engine = Engine(toy("paged", samples=True), 40)
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

    def submit(self, step: Step) -> ToyPending:
        pending = super().submit(step)
        if pending.value.logits is not None:
            for place, row in enumerate(step.rows):
                own = self._rows[step.context[step.context_sequence == step.sequence[row]]]
                if len(own) > 6 and own[0] == 4:
                    pending.value.logits[place, 3] = np.nan
        return pending


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("kind", ["paged", "slots"])
def test_an_error_ends_its_sequence_alone(kind: str, samples: bool) -> None:
    whole = toy(kind, samples=samples)
    executable = NanToyExecutable(whole.cache, whole.admits, samples=samples)
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
        assert not sequence.pages
    for which, run, first in zip((0, 2), runs, begun, strict=True):
        assert [first.token, *(event.token for event in run)] == expected(which)
    assert free_pages(engine) == executable.cache.pages


@pytest.mark.parametrize("samples", [False, True])
def test_an_error_in_a_batch_is_raised_and_ends_the_batch(samples: bool) -> None:
    executable = toy("paged", samples=samples)
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
    engine = Engine(toy("paged", samples=False), 40)
    sequence = engine.submit(Request(PROMPTS[3], 9, sampling=DOOMED))
    events = [event for _ in range(3) for event in engine.step()]
    assert [(event.token, event.finish) for event in events] == [(3, None), (3, None), (None, "error")]
    assert isinstance(sequence.error, OptionError)
    assert not sequence.events and engine.step() == []


def test_ids_beyond_the_tokenizer_are_not_chosen() -> None:
    for params in (GREEDY, PARAMS[0]):
        engine = Engine(toy("paged", samples=False), 40)
        sequence = engine.submit(Request(PROMPTS[0], 30, sampling=params, vocab_size=4))
        list(engine.run(sequence))
        assert len(sequence.generated) == 30 and max(sequence.generated) < 4
