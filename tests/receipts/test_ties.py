"""What rounding explains: every token that a sampler chooses when logits move within the noise, and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.receipts.ties import Borders, Noise, within
from ernie_rt.sampling.params import SamplingParams
from support.sampling import adjusted, kept, noise, specified, state_of

f32 = np.float32
NEAR = 0.4
PROMPT, GENERATED = [3, 9], [11]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 4},
    {"temperature": 1.0, "top_p": 0.6},
    {"temperature": 2.0, "min_p": 0.2},
    {"temperature": 0.8, "top_k": 9, "top_p": 0.8, "min_p": 0.02},
    {"repetition_penalty": 1.5, "frequency_penalty": 0.5, "bad_words": ((7,),), "logit_bias": {4: 1.0}},
    {"temperature": 1.2, "repetition_penalty": 0.7, "top_p": 0.7},
]


def measured(row: np.ndarray) -> Noise:
    return Noise(row.astype(np.float64), NEAR / 8, NEAR, "", NEAR)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_noise_can_bring_about_is_explained(options: dict[str, Any]) -> None:
    params = SamplingParams(seed=2, **options)
    rng, others = np.random.default_rng(7), 0
    for _ in range(12):
        row = (rng.standard_normal(24) * 1.5).astype(f32)
        chosen = specified(row, params, PROMPT, GENERATED)
        for _ in range(12):
            moved = (row + rng.uniform(-NEAR / 2, NEAR / 2, len(row))).astype(f32)
            token = specified(moved, params, PROMPT, GENERATED)
            others += token != chosen
            assert within(measured(row), state_of(params, PROMPT, GENERATED), token)
    assert others


@pytest.mark.parametrize("options", OPTIONS[:2] + OPTIONS[6:7], ids=str)
def test_what_is_farther_is_not(options: dict[str, Any]) -> None:
    """Without filters it is the distance of what is compared that counts."""
    params = SamplingParams(seed=2, **options)
    rng, near = np.random.default_rng(8), NEAR / (params.temperature or 1) * max(1.0, params.repetition_penalty)
    for _ in range(12):
        row = (rng.standard_normal(24) * 1.5).astype(f32)
        scores = np.array(adjusted(row, params, PROMPT, GENERATED)) / (params.temperature or 1)
        if params.temperature:
            scores = scores + np.array([noise(token, 2, 3) for token in range(24)])
        said = [within(measured(row), state_of(params, PROMPT, GENERATED), token) for token in range(24)]
        behind = scores.max() - scores
        clear = np.abs(behind - near) > 1e-4
        assert (np.array(said) == (behind <= near))[clear].all() and 1 < sum(said) + 1 < 24


@pytest.mark.parametrize("options", OPTIONS[2:6], ids=str)
def test_filters_cut_what_is_far_below_their_border(options: dict[str, Any]) -> None:
    params = SamplingParams(seed=2, **options)
    rng, cut = np.random.default_rng(9), 0
    for _ in range(12):
        row = (rng.standard_normal(24) * 4).astype(f32)
        left = kept([score / f32(params.temperature) for score in row], params)
        for token in set(range(24)) - set(left):
            if row[left[-1]] - row[token] > 4 * NEAR and len(left) > 2:
                cut += 1
                assert not within(measured(row), state_of(params, PROMPT, GENERATED), token)
    assert cut > 10


def test_the_borders_of_filters() -> None:
    """Tokens at a border, which a move of 0.1 of each carries over it, and one of 0.02 does not."""
    for better, over in ((0.62, True), (0.58, False)):
        scores = np.log([better, 1 - better])
        for near, decides in ((0.2, True), (0.04, False)):
            borders = Borders(scores, near, top_k=0, top_p=0.6, min_p=0.0)
            assert borders.may_keep(1) == (decides or not over) and borders.may_cut(1) == (decides or over)
            assert borders.may_keep(0) and not borders.may_cut(0)
    scores = np.array([1.0, 0.9, 0.0])
    for near, decides in ((0.2, True), (0.02, False)):
        borders = Borders(scores, near, top_k=1, top_p=1.0, min_p=0.0)
        assert borders.may_keep(1) == borders.may_cut(0) == decides and not borders.may_keep(2)
        borders = Borders(scores, near, top_k=0, top_p=1.0, min_p=float(np.exp(-0.15)))
        assert borders.may_keep(1) and borders.may_cut(1) == decides and not borders.may_keep(2)
    borders = Borders(np.array([1.0, 0.75]), 0.25, top_k=1, top_p=1.0, min_p=0.0)  # either may come first
    assert borders.may_keep(1) and borders.may_cut(0)
