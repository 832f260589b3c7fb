"""The sampler against its specification, against exact probabilities, and against what breaks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.sampler import Sampled, sample, sample_rows
from support.sampling import adjusted, kept, specified, state_of

VOCAB = 40


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A row with ties, a history, and parameters of every kind."""
    steps = draw(st.sampled_from([1, 8, 1000]))
    rows = st.lists(st.integers(-9 * steps, 9 * steps), min_size=VOCAB, max_size=VOCAB)
    ids = st.integers(0, VOCAB - 1)
    bad = st.lists(st.lists(ids, min_size=1, max_size=3), max_size=4)
    params = SamplingParams(
        temperature=draw(st.sampled_from([0, 0.01, 0.3, 1, 2.5])),
        top_k=draw(st.sampled_from([0, 1, 2, 5, VOCAB - 1, VOCAB, 1000])),
        top_p=draw(st.sampled_from([1, 0.999999, 0.95, 0.5, 1e-9])),
        min_p=draw(st.sampled_from([0, 1e-12, 0.02, 0.5, 1])),
        repetition_penalty=draw(st.sampled_from([1, 1.3, 0.7])),
        presence_penalty=draw(st.sampled_from([0, 0.7, -1.5])),
        frequency_penalty=draw(st.sampled_from([0, 0.3, -0.1])),
        logit_bias=draw(st.dictionaries(ids, st.floats(-20, 20, width=32), max_size=4)),
        bad_words=tuple(map(tuple, draw(bad))),
        allowed_ids=draw(st.none() | st.lists(ids, min_size=12, max_size=30, unique=True).map(tuple)),
        min_new_tokens=draw(st.integers(0, 6)),
        seed=draw(st.integers(0, 2**64 - 1)),
    )
    return {
        "row": np.array(draw(rows), np.float32) / steps,
        "params": params,
        "prompt": draw(st.lists(ids, min_size=1, max_size=5)),
        "generated": draw(st.lists(ids, max_size=5)),
        "stop_ids": draw(st.lists(ids, max_size=2)),
        "vocab_size": draw(st.sampled_from([None, VOCAB, VOCAB - 3])),
    }


def history(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name not in ("row", "params")}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(cases())
def test_as_specified(case: dict[str, Any]) -> None:
    row, params = case["row"], case["params"]
    before = row.copy()
    if max(adjusted(row, params, **history(case))) == -np.inf:
        with pytest.raises(OptionError, match="no token is left"):
            sample(row, state_of(params, **history(case)))
        return
    sampled = sample(row, state_of(params, **history(case)))
    assert sampled.token == specified(row, params, **history(case))
    np.testing.assert_array_equal(row, before)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(cases(), min_size=2, max_size=6), st.sampled_from([np.float16, np.float32, np.float64]), st.data())
def test_rows_together_are_as_rows_alone(every: list[dict[str, Any]], dtype: type, data: st.DataObject) -> None:
    """Whatever is in the other rows, and whatever goes wrong in them."""
    logits = np.stack([case["row"] for case in every]).astype(dtype)
    for row in logits:
        for value in data.draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=1)):
            row[data.draw(st.integers(0, VOCAB - 1))] = value
    states = [state_of(case["params"], **history(case)) for case in every]
    for case, row, state, found in zip(every, logits, states, sample_rows(logits, states), strict=True):
        seen = adjusted(row, case["params"], **history(case))
        if np.isfinite(max(seen)) and not np.isnan(seen).any():
            assert isinstance(found, Sampled) and found.token == specified(row, case["params"], **history(case))
            assert found == sample(row, state)
        else:
            masked = not np.isnan(seen).any() and max(seen) == -np.inf and row[: state.vocab_size].max() > -np.inf
            assert isinstance(found, OptionError if masked else BackendError)
            with pytest.raises(type(found), match=found.what):
                sample(row, state)


FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 4},
    {"top_p": 0.8},
    {"min_p": 0.15},
    {"temperature": 1.5, "top_k": 8, "min_p": 0.05, "top_p": 0.9},
    {"repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25},
    {"logit_bias": {3: 1.0, 5: -2.0}, "bad_words": ((1,),), "allowed_ids": tuple(range(9))},
]
ROW = np.random.default_rng(1).standard_normal(12).astype(np.float32) * 1.5
HISTORY = {"prompt": (2, 7), "generated": (7, 4, 4)}
DRAWS = 4000


@pytest.mark.parametrize("options", FILTERS, ids=str)
def test_chi_square(options: dict[str, Any]) -> None:
    """Tokens come as often as the softmax over what is kept says; those not kept never do."""
    params = SamplingParams(**({"temperature": 1.0, "seed": 11} | options))
    states = [state_of(params, **HISTORY) for _ in range(DRAWS)]
    for number, state in enumerate(states):
        state.position = number
    tokens = np.bincount([sample(ROW, state).token for state in states], minlength=12)
    scores = np.array(adjusted(ROW, params, **HISTORY)) / np.float32(params.temperature)
    left = kept(scores, params)
    exact = np.exp(scores[left].astype(np.float64))
    expected = DRAWS * exact / exact.sum()
    assert tokens[left].sum() == DRAWS
    degrees = len(left) - 1
    assert ((tokens[left] - expected) ** 2 / expected).sum() < degrees + 4 * np.sqrt(2 * degrees)


def test_the_same_seed_in_any_order() -> None:
    random = np.random.default_rng(2)
    rows = random.standard_normal((60, 200)).astype(np.float32) * 3
    states = [
        state_of(SamplingParams(seed=number % 7, **FILTERS[number % len(FILTERS)]), [1] * (1 + number % 5))
        for number in range(60)
    ]
    forwards = [sample(row, state) for row, state in zip(rows, states, strict=True)]
    order = random.permutation(60)
    assert [forwards[i] for i in order] == [sample(rows[i], states[i]) for i in order]


def test_a_seed_of_none_is_another_one_each_time() -> None:
    params = SamplingParams(temperature=1)
    assert len({state_of(params).seed for _ in range(20)}) == 20


def test_greedy_takes_the_lowest_of_equals() -> None:
    row = np.array([0, 3, 1, 3, 3], np.float32)
    assert sample(row, state_of(SamplingParams())).token == 1
    assert sample(row, state_of(SamplingParams(logit_bias={1: 0.0}))).token == 1
    wide = np.array([1.0, 1.0 + 1e-12])  # equal once they are float32
    assert sample(wide, state_of(SamplingParams())).token == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0}, {"repetition_penalty": 1.2}, {"temperature": 0.01, "top_p": 0.5}, {"logprobs": 2}],
    ids=str,
)
def test_logits_that_are_none(options: dict[str, Any]) -> None:
    for value, what in ((np.nan, "NaN"), (np.inf, "infinity")):
        row = np.zeros(9, np.float32)
        row[5] = value
        with pytest.raises(BackendError, match=f"the logits hold {what}"):
            sample(row, state_of(SamplingParams(**options)))
        sample(row, state_of(SamplingParams(**options), vocab_size=5))  # nobody looks at what is masked
    with pytest.raises(BackendError, match="no finite number"):
        sample(np.full(9, -np.inf, np.float32), state_of(SamplingParams(**options)))
    large = np.array([-3e38, 3e38, 1e38], np.float32)
    if options.get("temperature") == 0.01:
        with pytest.raises(BackendError, match="infinity"):
            sample(large, state_of(SamplingParams(**options)))
    else:
        assert sample(large, state_of(SamplingParams(**options), prompt=[0])).token == 1


def test_masked_logits_of_a_backend_are_never_drawn() -> None:
    row = np.full(50, -np.inf, np.float32)
    row[[7, 30]] = 0, -1
    for options in ({}, {"top_k": 5}, {"top_p": 0.99}, {"min_p": 0.001}):
        states = [state_of(SamplingParams(temperature=1, seed=seed, **options)) for seed in range(40)]
        assert {sample(row, state).token for state in states} == {7, 30}


def test_logprobs_are_the_models_own() -> None:
    """Of the raw logits, whatever penalties and temperature made of them, over the ids that the tokenizer knows."""
    row = np.array([1, 2, 2, -1, 9], np.float32)
    params = SamplingParams(temperature=0.5, seed=1, logit_bias={3: 100.0}, logprobs=3)
    sampled = sample(row, state_of(params, vocab_size=4))
    exact = row[:4] - np.log(np.exp(row[:4].astype(np.float64)).sum())
    assert sampled.token == 3 and sampled.logprobs is not None
    assert sampled.logprobs.chosen == pytest.approx(exact[3])
    assert [id for id, _ in sampled.logprobs.top] == [1, 2, 0]
    np.testing.assert_allclose([value for _, value in sampled.logprobs.top], exact[[1, 2, 0]])
    for count, ids in ((0, []), (1, [1]), (20, [1, 2, 0, 3])):
        sampled = sample(row, state_of(SamplingParams(logprobs=count), vocab_size=4))
        assert sampled.logprobs is not None and [id for id, _ in sampled.logprobs.top] == ids


@pytest.mark.parametrize("size", [9, 3000])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logprobs_of_a_row_with_masked_nan(size: int, value: float) -> None:
    """Nobody looks at it to choose a token; the model's own probabilities are none, and the other rows have theirs."""
    rows = np.zeros((2, size), np.float32)
    rows[0, 5] = value
    states = [state_of(SamplingParams(allowed_ids=(2,), logprobs=3)) for _ in rows]
    spoilt, sound = sample_rows(rows, states)
    assert isinstance(spoilt, Sampled) and spoilt.token == 2
    assert spoilt.logprobs is not None and np.isnan(spoilt.logprobs.chosen) and spoilt.logprobs.top == ()
    assert (
        isinstance(sound, Sampled) and sound.logprobs is not None and [id for id, _ in sound.logprobs.top] == [0, 1, 2]
    )
