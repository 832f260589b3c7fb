"""Margins: the runner-up is the token that a sampler chooses next, and lies behind by what is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.errors import OptionError
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.sampler import sample
from support.sampling import adjusted, kept, noise, state_of

f32 = np.float32
ROWS = 20


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3, "bad_words": ((7,),)},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 2.0, "min_p": 0.1, "presence_penalty": 0.5},
        {"temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
    ],
    ids=str,
)
def test_the_second_best_of_what_is_kept(options: dict[str, Any]) -> None:
    params = SamplingParams(seed=5, margins=True, **options)
    rng, alone = np.random.default_rng(1), 0
    for number in range(ROWS):
        row = (rng.standard_normal(60) * 2).astype(f32)
        state = state_of(params, [3, 9], [number], vocab_size=55)
        sampled = sample(row, state)
        scores = adjusted(row, params, [3, 9], [number], vocab_size=55)
        if params.temperature:
            scores = [score / f32(params.temperature) for score in scores]
            totals = {token: scores[token] + noise(token, 5, 3) for token in kept(scores, params)}
        else:
            totals = {token: scores[token] for token in range(55) if scores[token] > -np.inf}
        first, *others = sorted(totals, key=lambda token: (-totals[token], token))
        assert sampled.token == first and sampled.logprobs is not None and sampled.logprobs.top == ()
        if others:
            second, margin = sampled.logprobs.runner_up or (-1, 0.0)
            assert second == others[0] and margin == pytest.approx(totals[first] - totals[second], abs=1e-6)
        else:
            alone += 1
            assert sampled.logprobs.runner_up is None
    assert alone < ROWS


def test_one_token_that_may_come_has_no_runner_up() -> None:
    state = state_of(SamplingParams(allowed_ids=(4,), margins=True))
    sampled = sample(np.zeros(8, f32), state)
    assert sampled.token == 4 and sampled.logprobs is not None and sampled.logprobs.runner_up is None


def test_they_are_told_when_asked_for() -> None:
    plain = sample(np.arange(8, dtype=f32), state_of(SamplingParams(logprobs=1)))
    assert plain.logprobs is not None and plain.logprobs.runner_up is None
    assert not SamplingParams(margins=True).drawable
    with pytest.raises(OptionError, match="margins is not possible; expected True or False; found 1"):
        SamplingParams(margins=1)  # type: ignore[arg-type]
