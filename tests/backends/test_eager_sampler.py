"""The sampler in PyTorch chooses what the one in NumPy chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.philox import gumbel
from ernie_rt.sampling.sampler import penalise, sample
from ernie_rt.sampling.state import SamplerState
from ernie_rt_eager import sampler as ours
from support.sampling import state_of

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 0.9, "top_p": 0.95},
    {"temperature": 0.9, "min_p": 0.1},
    {
        "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3,
        "presence_penalty": 0.4, "frequency_penalty": 0.3, "logit_bias": {3: 2.0, 7: -4.0}, "bad_words": [[5], [4, 6]],
    },
    {"repetition_penalty": 1.2, "allowed_ids": range(10, 90), "min_new_tokens": 9},
]  # fmt: skip
ROWS, VOCAB, BLOCK = 100_000, 97, 500
TIE = 1e-5


def states(random: np.random.Generator, count: int) -> list[SamplerState]:
    made = []
    for number in range(count):
        params = SamplingParams(seed=int(random.integers(2**63)) * 2 + number % 2, **OPTIONS[number % len(OPTIONS)])
        prompt, generated = (random.integers(0, 90, size).tolist() for size in (5, 4))
        made.append(state_of(params, prompt, generated, stop_ids=(2, 60), vocab_size=90))
    return made


def agree(random: np.random.Generator, device: str, rows: int) -> None:
    for block in range(rows // BLOCK):
        logits = (3 * random.standard_normal((BLOCK, VOCAB))).astype(np.float32)
        if block % 3 == 0:
            logits = np.round(logits * 8) / 8  # many ties
        every = states(random, BLOCK)
        tokens = [sample(row, state).token for row, state in zip(logits, every, strict=True)]
        for row, state, expected, token in zip(
            logits, every, tokens, ours.sample(torch.from_numpy(logits).to(device), every).tolist(), strict=True
        ):
            if token != expected:
                scores = penalise(row, state) / np.float32(state.params.temperature or 1)
                if state.params.temperature:
                    scores += gumbel(np.arange(VOCAB), state.seed, state.position)
                assert abs(scores[token] - scores[expected]) < TIE


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_tokens(device: str) -> None:
    agree(np.random.default_rng(0), device, 2000)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_the_same_tokens_of_100_000_rows(device: str) -> None:
    agree(np.random.default_rng(1), device, ROWS)


@pytest.mark.parametrize("device", DEVICES)
def test_a_vocabulary_of_full_size(device: str) -> None:
    random = np.random.default_rng(2)
    logits = (2 * random.standard_normal((8, 103_424))).astype(np.float32)
    every = states(random, 8)
    for state in every:
        state.vocab_size = 101_304
    told = ours.sample(torch.from_numpy(logits).to(device), every)
    assert told.dtype == torch.int32 and told.device.type == device
    assert told.tolist() == [sample(row, state).token for row, state in zip(logits, every, strict=True)]


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_the_same_in_float32(device: str) -> None:
    ids = np.random.default_rng(3).integers(0, 2**20, (3, 5000))
    keys = [(0, 0), (2**64 - 1, 131071), (0x1234567890ABCDEF, 77)]
    drawn = ours.gumbel(torch.from_numpy(ids).to(device), *map(list, zip(*keys, strict=True)))  # type: ignore[arg-type]
    expected = np.stack([gumbel(row, *key) for row, key in zip(ids, keys, strict=True)])
    np.testing.assert_allclose(drawn.cpu().numpy(), expected, rtol=2e-7, atol=2e-7)
    assert (drawn.cpu().numpy() != expected).mean() < 1e-3


def test_logits_that_are_none() -> None:
    plain = state_of(SamplingParams())
    for value in (np.nan, np.inf):
        row = torch.zeros(1, 9)
        row[0, 5] = value
        with pytest.raises(BackendError, match="the logits hold NaN or infinity"):
            ours.sample(row, [plain])
    with pytest.raises(OptionError, match="no token is left to choose"):
        ours.sample(torch.zeros(1, 9), [state_of(SamplingParams(allowed_ids=(3,), bad_words=((3,),)))])


def test_logits_are_left_as_they_are() -> None:
    row = torch.ones(1, 9)
    ours.sample(row, [state_of(SamplingParams(temperature=1, logit_bias={3: 1.0}, repetition_penalty=2.0))])
    assert (row == 1).all()


def test_top_p_on_its_very_border() -> None:
    """Equal weights: a share of exactly top-p is enough."""
    for count in (1, 3, 4):
        every = [state_of(SamplingParams(temperature=1, top_p=count / 8, seed=seed)) for seed in range(60)]
        assert set(ours.sample(torch.zeros(60, 8), every).tolist()) == set(range(count))
