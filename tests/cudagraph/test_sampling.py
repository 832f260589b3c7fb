"""Tokens drawn by kernels are those that docs/sampling.md specifies."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from ernie_rt.sampling.draws import Draws, draw
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.sampler import sample
from ernie_rt.sampling.state import SamplerState
from ernie_rt_cudagraph import sampling as ours
from ernie_rt_cudagraph.inputs import device_draws
from ernie_rt_cudagraph.launch import listed
from support.recorded import Recorder
from support.sampling import specified, state_of

CPU = torch.device("cpu")
TIE = 1e-5
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.9, "min_p": 0.1},
    {"temperature": 1.5, "top_k": 8, "top_p": 0.7},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
]


def case(random: np.random.Generator, rows: int, vocabulary: int) -> tuple[np.ndarray, Draws]:
    """Rows of every kind, and every combination of filters, extremes among them."""

    def each(*values: Any) -> np.ndarray:
        return random.choice(values, rows)

    spread, middle = each(0, 1e-30, 0.01, 0.2, 1, 3, 10, 100, 1e9, 1e30), each(0, 0, 20, -100, 2.0**28)
    logits = spread[:, None] * random.standard_normal((rows, vocabulary)) + middle[:, None]
    tied = random.random(rows) < 0.5
    logits[tied] = np.round(logits[tied] * 8) / 8
    logits[random.random(logits.shape) < 0.02] = -0.0
    logits[random.random(logits.shape) < each(0, 0, 0.1, 0.9)[:, None]] = -np.inf
    for wrong in (np.nan, -np.nan, np.inf):
        logits[random.random(logits.shape) < 0.02 / vocabulary] = wrong
    logits[random.random(rows) < 0.03] = -np.inf
    some = random.integers(1, vocabulary + 1, rows)
    return logits.astype(np.float32), Draws(
        known=np.where(each(0, 1, 1, 1), each(vocabulary, 2**31 - 1, *some), 0).astype(np.int32),
        temperature=each(0, 0.01, 0.5, 1, 1, 1.7, 100).astype(np.float32),
        top_k=each(0, 0, 0, 1, 2, 5, 20, vocabulary, 2**31 - 1).astype(np.int32),
        top_p=each(1, 1, 1, 1e-300, 1e-9, 0.1, 0.5, 0.8, 0.95, 1 - 1e-9, 1 - 2.0**-53),
        min_p=each(0, 0, 0, 0, 1e-300, 1e-9, 0.01, 0.3, 1),
        seed=random.integers(0, 2**64, rows, dtype=np.uint64),
        position=random.integers(0, 2**17, rows, dtype=np.int32),
    )


def drawn(logits: np.ndarray, draws: Draws, *, greedy: bool = False) -> np.ndarray:
    return ours.draw(torch.from_numpy(logits), device_draws(draws, CPU), greedy=greedy).numpy()


def agree(logits: np.ndarray, draws: Draws) -> None:
    tokens, right = drawn(logits, draws), draw(logits, draws)
    assert tokens.dtype == right.dtype
    for row in np.flatnonzero(tokens != right).tolist():
        two = np.array([tokens[row], right[row]])
        said = {field.name: getattr(draws, field.name)[row] for field in fields(draws)}
        assert draws.temperature[row] > 0 and (two >= 0).all(), f"{two} of {said}"
        noise = noise_at(two, draws.seed[row], draws.position[row].astype(np.uint64))
        scores = logits[row, two] / draws.temperature[row] + noise
        assert abs(scores[0] - scores[1]) <= TIE, f"{two} of {said}, at {scores}"


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("vocabulary", [1, 7, 50, 130, 3000])
def test_as_in_numpy(vocabulary: int) -> None:
    agree(*case(np.random.default_rng(vocabulary), 24, vocabulary))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("seed", range(50))
def test_as_in_numpy_again_and_again(seed: int) -> None:
    random = np.random.default_rng(seed)
    agree(*case(random, 40, int(random.choice([2, 50, 97, 128, 500, 3000, 4099, 9000]))))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_vocabularies_of_full_size() -> None:
    agree(*case(np.random.default_rng(0), 40, 103_424))


def test_as_specified() -> None:
    random = np.random.default_rng(0)
    logits = (3 * random.standard_normal((28, 60))).astype(np.float32)
    logits[::2] = np.round(logits[::2] * 2) / 2
    params = [SamplingParams(seed=int(random.integers(2**63)) * 2 + n % 2, **OPTIONS[n % 7]) for n in range(28)]
    draws = Draws.of([state_of(each, [1] * (1 + n % 3)) for n, each in enumerate(params)], 60)
    assert drawn(logits, draws).tolist() == [
        specified(row, each, [1] * (1 + n % 3)) for n, (row, each) in enumerate(zip(logits, params, strict=True))
    ]


@pytest.mark.parametrize("greedy", [False, True])
def test_the_largest(greedy: bool) -> None:
    logits = np.full((10, 200), -1, np.float32)
    logits[0, 3], logits[1, 199], logits[2] = np.nan, np.inf, -np.inf
    logits[3, [50, 130]], logits[4, 150], logits[5], logits[6, [20, 7]] = 2, 1, 0.0, [0.0, -0.0]
    logits[7], logits[7, 190], logits[9, 4] = -np.inf, -5, -np.nan
    draws = Draws.greedy(10, 200)
    draws.known[[4, 8]] = 100, 0
    assert drawn(logits, draws, greedy=greedy).tolist() == [-1, -1, -1, 50, 0, 0, 7, 190, -1, -1]


def test_noise_lifts_a_token_as_far_as_rounding_lets_it() -> None:
    """Large scores lie so far apart that a token 32 below the best one, with noise of 17, comes to be its equal."""
    logits = np.full((3, 12), -np.inf, np.float32)
    logits[:, 3], logits[:, 9] = 2.0**28 + 32, 2.0**28 + 64
    states = [state_of(SamplingParams(temperature=1, seed=1, **more)) for more in ({}, {"top_k": 5}, {"top_p": 0.9})]
    draws = Draws.of(states, 12)
    draws.position[:] = 349_317
    assert drawn(logits, draws).tolist() == draw(logits, draws).tolist() == [3, 3, 9]


def test_a_share_of_exactly_top_p_is_enough() -> None:
    logits, counts = np.zeros((24, 8), np.float32), np.tile([1, 3, 4], 8)
    params = [SamplingParams(temperature=1, top_p=count / 8, seed=n) for n, count in enumerate(counts.tolist())]
    draws = Draws.of([state_of(each) for each in params], 8)
    tokens = drawn(logits, draws)
    assert tokens.tolist() == draw(logits, draws).tolist()
    assert [tokens[counts == count].max() for count in (1, 3, 4)] == [0, 2, 3]


def test_of_equal_scores_those_of_the_lowest_ids_are_kept() -> None:
    """In the first chunks of many, and of a row that is in one bin."""
    logits = np.ones((8, 5000), np.float32)
    logits[:, 2100:] = np.float32(1.0000001)
    states = [
        state_of(SamplingParams(temperature=1, top_k=top_k)) for top_k in (1, 7, 2000, 2899, 2900, 2901, 3000, 4999)
    ]
    draws = Draws.of(states, 5000)
    assert drawn(logits, draws).tolist() == draw(logits, draws).tolist()


def states(count: int) -> list[SamplerState]:
    random = np.random.default_rng(1)
    more: list[dict[str, Any]] = [
        {
            "temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.4,
            "frequency_penalty": 0.3, "logit_bias": {3: 2.0, 7: -4.0}, "bad_words": [[5], [4, 6]],
        },
        {"repetition_penalty": 1.2, "allowed_ids": range(10, 90), "min_new_tokens": 9},
    ]  # fmt: skip
    made = []
    for number in range(count):
        prompt, generated = (random.integers(0, 90, size).tolist() for size in (5, 4))
        params = SamplingParams(seed=number, **more[number % 2])
        made.append(state_of(params, prompt, generated, stop_ids=(2, 60), vocab_size=90))
    return made


def test_rows_of_sequences_with_penalties_and_masks() -> None:
    logits = (3 * np.random.default_rng(2).standard_normal((10, 97))).astype(np.float32)
    every, before = states(10), logits.copy()
    tokens = ours.sample_rows(logits, every, "cpu")
    assert tokens.tolist() == [sample(row, state).token for row, state in zip(logits, every, strict=True)]
    assert (logits == before).all()


def test_greedy_choices_are_told_apart() -> None:
    params = [SamplingParams(), SamplingParams(temperature=1)]
    assert [ours.is_greedy(Draws.of([state_of(each)], 9)) for each in params] == [True, False]


@pytest.mark.parametrize(("greedy", "count"), [(True, 2), (False, 8)])
def test_few_launches(greedy: bool, count: int) -> None:
    draws = device_draws(Draws.greedy(4, 103_424), torch.device("meta"))
    with listed() as launches:
        tokens = ours.draw(torch.empty(4, 103_424, device="meta"), draws, greedy=greedy, pdl=True)
    assert len(launches) == count and tokens.shape == (4,)
    assert all(launch.arguments["PDL"] for launch in launches)


def test_recorded_once_and_replayed() -> None:
    """Whatever is drawn later, in the same buffers."""
    random = np.random.default_rng(3)
    logits = torch.from_numpy((3 * random.standard_normal((7, 60))).astype(np.float32))
    draws = device_draws(Draws.greedy(7, 60), CPU)
    replay = Recorder().record(lambda: ours.draw(logits, draws, greedy=False))
    told = Draws.of([state_of(SamplingParams(seed=n, **options)) for n, options in enumerate(OPTIONS)], 60)
    for field in fields(draws):
        getattr(draws, field.name).copy_(getattr(device_draws(told, CPU), field.name))
    assert replay().tolist() == draw(logits.numpy(), told).tolist()
