"""What the filters leave: nothing that is kept is lost, and the border of top-p is told exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.sampling.candidates import (
    LEAST_NOISE,
    MOST_NOISE,
    Candidates,
    Care,
    Row,
    Space,
    candidates,
    the_best,
    whole_weights,
)
from ernie_rt.sampling.params import SamplingParams
from support.sampling import kept


def found_of(scores: Row, params: SamplingParams, care: Care) -> Candidates:
    found = candidates(
        scores, np.float32(1), params.top_k, params.top_p, params.min_p, Space(len(scores)), care
    )  # fmt: skip
    assert found is not None
    return found


def check(scores: Row, **options: Any) -> bool:
    """Whether float32 weights were good enough to tell the border."""
    params = SamplingParams(**options)
    best_first = kept(scores, params)
    sure = True
    for care in Care:
        found = found_of(scores, params, care)
        ids = np.arange(len(scores)) if found.ids is None else found.ids
        assert (np.diff(ids) > 0).all() and (scores[ids] == found.scores).all()
        if params.top_p == 1:
            unfiltered = not 0 < params.top_k < len(scores) and params.min_p == 0
            worst = found.scores.min() if unfiltered else np.float32(-np.inf)  # those that noise can make the best
            assert ids.tolist() == sorted(id for id in best_first if scores[id] >= worst)
            continue
        place = {int(id): n for n, id in enumerate(ids)}
        order = sorted(place, key=lambda id: (-scores[id], id))
        assert order[: len(best_first)] == best_first, "the best ones, and all that are kept"
        for count in {0, len(best_first) - 1, min(len(best_first), len(order) - 1)}:
            better = found.better(place[order[count]])
            assert sorted(ids[better].tolist()) == sorted(order[:count])
            told = found.keeps(better)
            assert told is (count < len(best_first)) or (told is None and care is not Care.MOST)
            sure &= told is not None
        assert not any(
            found.keeps_all(np.array([place[id] for id in order[:count]]))
            for count in range(len(best_first) + 1, min(len(best_first) + 3, len(order)))
        )
    return sure


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("offset", [0.0, 1e4, -3e8])
@pytest.mark.parametrize("step", [0.0, 0.25])
def test_rows_of_all_shapes(spread: float, offset: float, step: float) -> None:
    """Flat and steep rows, large logits, many ties."""
    random = np.random.default_rng(0)
    row = spread * random.standard_normal(5000) + offset
    scores = (np.round(row / step) * step if step else row).astype(np.float32)
    for options in (
        {"top_p": 0.1}, {"top_p": 0.8}, {"top_p": 0.95}, {"top_p": 0.99999}, {"top_p": 1 - 1e-12}, {"min_p": 0.05},
        {"min_p": 1e-9}, {"top_k": 50}, {"top_k": 700}, {"top_k": 4000, "min_p": 0.01, "top_p": 0.7},
    ):  # fmt: skip
        check(scores, **options)


def test_steep_rows_with_a_long_tail() -> None:
    """Most tokens count as a bound on their sum, unless they are needed."""
    random = np.random.default_rng(1)
    sure = 0
    for _ in range(10):
        scores = (-2.5 * np.log(random.permutation(3000) + 1) + random.standard_normal(3000)).astype(np.float32)
        sure += sum(check(scores, top_p=top_p) for top_p in (0.3, 0.8, 0.95))
        check(scores, top_p=1 - 1e-7)
        check(scores - np.where(random.random(3000) < 0.5, np.float32(np.inf), np.float32(0)), top_p=0.9)
    assert sure >= 29


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-200, 200), min_size=1, max_size=60),
    st.sampled_from([1, 8, 1000]),
    st.sampled_from([1, 0.999999, 0.95, 0.5, 1e-9]),
    st.sampled_from([0, 1e-12, 0.02, 0.5, 1]),
    st.sampled_from([0, 1, 2, 5, 59, 1000]),
)
def test_small_rows(values: list[int], steps: int, top_p: float, min_p: float, top_k: int) -> None:
    check(np.array(values, np.float32) / np.float32(steps), top_p=top_p, min_p=min_p, top_k=top_k)


def test_top_p_on_its_very_border() -> None:
    """Weights in whole numbers: a share of exactly top-p is enough, and a rough sum must not decide."""
    for size, counts in ((8, range(1, 9)), (65536, (1, 2, 32767, 32768, 32769))):
        scores = np.zeros(size, np.float32)
        scores[::3] = -0.0
        for count in counts:
            params = SamplingParams(top_p=count / size - (1e-14 if count == size else 0))
            found = found_of(scores, params, Care.MOST)
            assert found.keeps(found.better(count - 1)) is True, "the lowest ids among equals"
            rough = found_of(scores, params, Care.LEAST)
            if count < size:
                assert found.keeps(found.better(count)) is False
                assert rough.keeps(rough.better(count)) is None, "the sum is too near to the limit"


def test_many_far_tokens_move_the_border() -> None:
    """Each weighs next to nothing, and together they decide."""
    scores = np.full(20_000, -15.5, np.float32)
    scores[[3, 8]] = 0, -1
    for share in (0.99, 1.0, 1.002, 1.01):
        check(scores, top_p=share / (1 + np.exp(-1) + 20_000 * np.exp(-15.5)))


def test_no_rough_sum_tells_more_than_it_knows() -> None:
    """Limits that lie on the border of a token, or a rounding error beside it."""
    random = np.random.default_rng(3)
    for spread in (0.01, 1, 3):
        scores = (spread * random.standard_normal(3000)).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        sums = whole_weights(scores, scores.max())[order].cumsum()
        for place in random.integers(0, 2900, 25):
            for factor in (1 - 1e-7, 1 - 1e-9, 1, 1 + 1e-9, 1 + 1e-7):
                top_p = factor * sums[place] / sums[-1]
                limit = top_p * sums[-1]
                for care in Care:
                    found = found_of(scores, SamplingParams(top_p=top_p), care)
                    ids = np.arange(3000) if found.ids is None else found.ids
                    (at,) = np.flatnonzero(ids == order[place + 1])
                    told = found.keeps(found.better(int(at)))
                    assert told is bool(sums[place] < limit) or (told is None and care is not Care.MOST)


def test_weights_that_round_away() -> None:
    """22 below the best a token weighs nothing, and no share is so large that it is kept."""
    scores = np.array([0, -20.7, -21, -21.4, -21.6, -30], np.float32)
    check(scores, top_p=float(np.nextafter(1, 0)))
    check(scores, min_p=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_k_best(dtype: type) -> None:
    random = np.random.default_rng(2)
    for size in (5, 100, 2000, 40_000):
        for ties in (1, 2, 50):
            scores = np.floor(random.standard_normal(size) * 1000 / ties).astype(dtype)
            scores[random.random(size) < 0.1] = -np.inf
            order = np.argsort(-scores, kind="stable")
            for k in (1, 3, 20, 64, 900):
                if k < size:
                    best = order[:k][scores[order[:k]] > -np.inf]
                    assert the_best(scores, k).tolist() == sorted(best.tolist())
    few = np.full(3000, -np.inf, dtype)
    few[[5, 2999]] = 0, 1
    assert the_best(few, 20).tolist() == [5, 2999] and the_best(few, 2).tolist() == [5, 2999]


@pytest.mark.parametrize("best", [0.0, -7.5, 1e5, 3e8, -3.4e38])
def test_what_noise_cannot_reach_is_left_out(best: float) -> None:
    scores = np.full(10_000, -np.inf, np.float32)
    scores[:100] = np.float32(best) - np.linspace(0, 60, 100, dtype=np.float32) * max(1.0, abs(best) / 1e7)
    found = found_of(scores, SamplingParams(), Care.LEAST)
    assert found.ids is not None and 0 in found.ids
    left_out = np.delete(scores, found.ids)
    assert (left_out + MOST_NOISE < scores[0] + LEAST_NOISE).all()
    if abs(best) < 1e6:
        assert len(found.ids) < 60
    flat = np.zeros(10_000, np.float32)
    assert found_of(flat, SamplingParams(), Care.LEAST).ids is None
