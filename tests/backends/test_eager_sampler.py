"""The sampler in PyTorch chooses what the one in NumPy chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ernie_rt.sampling.draws import Draws, draw
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.sampler import penalise, sample
from ernie_rt.sampling.state import SamplerState
from ernie_rt_eager import sampler as ours
from support.devices import DEVICES
from support.sampling import state_of

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
            logits, every, tokens, ours.sample_rows(logits, every, device).tolist(), strict=True
        ):
            if token != expected:
                scores = penalise(row, state) / np.float32(state.params.temperature or 1)
                if state.params.temperature:
                    scores += noise_at(np.arange(VOCAB), state.seed, state.position)
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
    assert ours.sample_rows(logits, every, device).tolist() == [
        sample(row, state).token for row, state in zip(logits, every, strict=True)
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kinds", [slice(1), slice(2), slice(None, 6), slice(3, 6)], ids=str)
def test_draws_as_in_numpy(device: str, kinds: slice) -> None:
    """Greedy rows alone, rows without filters, and all together, of half precision too."""
    random = np.random.default_rng(4)
    logits = torch.from_numpy(3 * random.standard_normal((60, VOCAB))).to(torch.bfloat16).float()
    logits[3, 7], logits[4, 96], logits[5], logits[6, 50] = np.nan, np.inf, -np.inf, -np.inf
    params = [SamplingParams(seed=n, **OPTIONS[kinds][n % len(OPTIONS[kinds])]) for n in range(60)]
    told = Draws.of([state_of(each, [1] * (1 + n % 3)) if n % 9 else None for n, each in enumerate(params)], 90)
    drawn = ours.draw(logits.to(device), told)
    assert drawn.dtype == torch.int32 and drawn.device.type == device
    assert drawn.tolist() == draw(logits.numpy(), told).tolist()
    assert drawn[[0, 3, 5, 9]].tolist() == [-1] * 4 and (drawn[[1, 2, 4, 6]] >= 0).all()
    if device == "cpu":
        assert ours.draw(logits.bfloat16(), told).tolist() == drawn.tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_the_same_in_float32(device: str) -> None:
    ids = np.random.default_rng(3).integers(0, 2**20, (3, 5000))
    keys = [(0, 0), (2**64 - 1, 131071), (0x1234567890ABCDEF, 77)]
    halves = np.array([[seed & 0xFFFFFFFF, seed >> 32, position] for seed, position in keys])
    columns = (torch.from_numpy(half)[:, None].to(device) for half in halves.T.copy())
    drawn = ours.gumbel(torch.from_numpy(ids).to(device), *columns)
    expected = np.stack([noise_at(row, *key) for row, key in zip(ids, keys, strict=True)])
    np.testing.assert_allclose(drawn.cpu().numpy(), expected, rtol=2e-7, atol=2e-7)
    assert (drawn.cpu().numpy() != expected).mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU has nothing to wait for")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_waits_for_nothing() -> None:
    told = Draws.of(states(np.random.default_rng(5), 16), 90)
    logits = torch.randn(16, VOCAB, device="cuda")
    ours.draw(logits, told)
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = ours.draw(logits, told)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert drawn.tolist() == draw(logits.cpu().numpy(), told).tolist()


def test_logits_are_left_as_they_are() -> None:
    row, rows = torch.ones(1, 9), np.ones((1, 9), np.float32)
    every = [state_of(SamplingParams(temperature=1, top_p=0.9, logit_bias={3: 1.0}, repetition_penalty=2.0))]
    ours.draw(row, Draws.of(every, 9))
    ours.sample_rows(rows, every, "cpu")
    assert (row == 1).all() and (rows == 1).all()


def test_penalties_are_where_the_logits_are() -> None:
    """On a device that can only tell where its numbers lie, and mixes them with no others."""
    params = SamplingParams(repetition_penalty=1.3, frequency_penalty=0.3, logit_bias={3: 2.0}, allowed_ids=range(1, 9))
    ours.penalise(torch.empty(VOCAB, device="meta"), state_of(params, [1, 2, 3], [4]))


def test_top_p_on_its_very_border() -> None:
    """Equal weights: a share of exactly top-p is enough."""
    for count in (1, 3, 4):
        every = [state_of(SamplingParams(temperature=1, top_p=count / 8, seed=seed)) for seed in range(60)]
        assert set(ours.draw(torch.zeros(60, 8), Draws.of(every, 8)).tolist()) == set(range(count))
