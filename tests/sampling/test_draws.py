"""What a device is told about choosing tokens, and that NumPy chooses the same with it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.sampling import candidates, draws, gumbel_max
from ernie_rt.sampling.draws import Draws, draw
from ernie_rt.sampling.params import SamplingParams
from support.sampling import specified, state_of

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 0.8, "top_k": 5},
    {"temperature": 0.8, "top_k": 700},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 2.5, "top_p": 0.95},
    {"temperature": 0.7, "top_p": 0.5},
    {"temperature": 1.0, "top_p": 0.999999},
    {"temperature": 0.9, "min_p": 0.05},
    {"temperature": 1.5, "min_p": 1e-9},
    {"temperature": 0.8, "top_k": 900, "top_p": 0.9, "min_p": 0.001},
]


def values(given: Draws) -> dict[str, list[Any]]:
    return {field.name: getattr(given, field.name).tolist() for field in fields(given)}


def test_draws_say_what_sequences_ask_for() -> None:
    params = SamplingParams(temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, seed=2**64 - 1)
    states = [state_of(params, [1, 2], [3]), None, state_of(SamplingParams(seed=4), vocab_size=90)]
    told = Draws.of(states, 97)
    assert values(told) == {
        "known": [97, 0, 90],
        "temperature": [np.float32(0.7), 0, 0],
        "top_k": [5, 0, 0],
        "top_p": [0.9, 1, 1],
        "min_p": [0.1, 0, 0],
        "seed": [2**64 - 1, 0, 4],
        "position": [3, 0, 1],
    }
    dtypes = {field.name: getattr(told, field.name).dtype.name for field in fields(told)}
    assert dtypes == {
        "known": "int32", "temperature": "float32", "top_k": "int32", "top_p": "float64", "min_p": "float64",
        "seed": "uint64", "position": "int32",
    }  # fmt: skip
    rows = told.rows(np.array([0, 2, 0]), np.array([0, 1, 7]))
    assert rows.position.tolist() == [3, 2, 10] and rows.known.tolist() == [97, 90, 97]
    assert {field.name: getattr(rows, field.name).dtype.name for field in fields(rows)} == dtypes
    assert values(Draws.of([state_of(SamplingParams(seed=0), prompt=[])] * 2, 8)) == values(Draws.greedy(2, 8))
    assert len(Draws.of([], 5).known) == 0 and draw(np.zeros((0, 5), np.float32), Draws.of([], 5)).tolist() == []


def rows_of(random: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    flat = 2 * random.standard_normal(size)
    steep = -3 * np.log(random.permutation(size) + 1) + random.standard_normal(size)
    masked = np.where(random.random(size) < 0.7, -np.inf, flat)
    return {
        "flat": flat,
        "steep": steep,
        "ties": np.round(flat),
        "equal": np.zeros(size),
        "large": 1e8 + 8 * np.round(flat),
        "swallowed": 1e8 + 8 * np.round(flat / 6),
        "masked": masked,
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", ["flat", "steep", "ties", "equal", "large", "swallowed", "masked"])
def test_the_same_as_specified(shape: str, dtype: type) -> None:
    """Rows of many candidates and of few, together."""
    if shape in ("large", "swallowed") and dtype is np.float16:
        return
    size, known = 1203, 1198
    random = np.random.default_rng(5)
    states = [
        state_of(
            SamplingParams(seed=int(random.integers(2**63)), **options), [1] * (n + 1), vocab_size=(None, known)[n % 2]
        )
        for n, options in enumerate(OPTIONS * 2)
    ]
    logits = np.stack([rows_of(random, size)[shape] for _ in states]).astype(dtype)
    expected = [
        specified(row.astype(np.float32), state.params, [1] * state.position, vocab_size=state.vocab_size)
        for row, state in zip(logits, states, strict=True)
    ]
    before = logits.copy()
    assert draw(logits, Draws.of(states, size)).tolist() == expected
    np.testing.assert_array_equal(logits, before)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_the_ways(data: st.DataObject) -> None:
    """With few candidates and many of them, of which a head is drawn first, or words come one by one."""
    size = data.draw(st.integers(1, 40))
    steps = data.draw(st.sampled_from([1, 4]))
    count = data.draw(st.integers(1, 6))
    numbers = st.integers(-9 * steps, 9 * steps) | st.just(-1000 * steps)
    logits = np.array(
        data.draw(st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=count, max_size=count))
    )
    logits = logits.astype(np.float32) / np.float32(steps)
    states = [
        state_of(
            SamplingParams(seed=data.draw(st.integers(0, 2**64 - 1)), **options), [0] * data.draw(st.integers(1, 3))
        )
        for options in data.draw(st.lists(st.sampled_from(OPTIONS), min_size=count, max_size=count))
    ]
    expected = [specified(row, state.params, [0] * state.position) for row, state in zip(logits, states, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        few, head = data.draw(st.sampled_from([0, 3, 512])), data.draw(st.sampled_from([1, 3, 64]))
        patch.setattr(candidates, "FEW", few)
        patch.setattr(draws, "FEW", few)
        patch.setattr(gumbel_max, "HEAD", head)
        assert draw(logits, Draws.of(states, size)).tolist() == expected


def test_rough_weights_leave_the_border_to_exact_ones() -> None:
    """Equal weights, of which a share of exactly top-p is enough."""
    for size in (8, 2048):
        for count in (1, 3, size // 2):
            every = [state_of(SamplingParams(temperature=1, top_p=count / size, seed=seed)) for seed in range(60)]
            tokens = draw(np.zeros((60, size), np.float32), Draws.of(every, size))
            assert 0 <= tokens.min() <= tokens.max() < count and len(set(tokens.tolist())) >= min(count, 30)


def test_no_number_is_no_token() -> None:
    """And a row of its own."""
    for options in OPTIONS:
        rows = np.tile(np.linspace(0, 1, 700, dtype=np.float32), (8, 1))
        rows[1, 5], rows[2, 699], rows[3], rows[4, 600] = np.nan, np.inf, -np.inf, -np.inf
        rows[5, [3, 4]] = 3.4e38, -3.4e38
        states = [state_of(SamplingParams(seed=n, **options)) for n in range(8)]
        told = Draws.of([*states[:6], None, states[7]], 700)
        tokens = draw(rows, told).tolist()
        too_large = bool(0 < told.temperature[0] < 1)
        assert [token < 0 for token in tokens] == [False, True, True, True, False, too_large, True, False]
        assert set(tokens) >= {-1} and min(tokens) == -1
        alone = [int(draw(rows[[n]], told.rows(np.array([n])))[0]) for n in range(8)]
        assert tokens == alone


def test_only_known_ids_are_chosen() -> None:
    rows = np.zeros((3, 9), np.float32)
    rows[:, 7] = 5, np.nan, np.inf
    assert (draw(rows, Draws.greedy(3, 7)) == 0).all()
    states = [state_of(SamplingParams(temperature=1, seed=n)) for n in range(3)]
    assert (draw(rows, Draws.of(states, 7)) < 7).all() and (draw(rows, Draws.of(states, 7)) >= 0).all()


def test_a_place_farther_is_another_draw() -> None:
    """As of the token after it, which draft tokens need."""
    row = np.random.default_rng(3).standard_normal(50).astype(np.float32)
    state = state_of(SamplingParams(temperature=1, seed=9), [1, 2])
    ahead = draw(np.tile(row, (6, 1)), Draws.of([state], 50).rows(np.zeros(6, np.intp), np.arange(6)))
    expected = []
    for _ in range(6):
        expected.append(int(draw(row[None], Draws.of([state], 50))[0]))
        state.accept(1)
    assert ahead.tolist() == expected and len(set(expected)) > 1
