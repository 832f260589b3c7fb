"""Loads and balances, beside counting by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.routing.data import Balance, Int32, Routes, Routing, fixed


def routes(seed: int, tokens: int = 30, experts: int = 7, top_k: int = 3, biased: bool = True) -> Routes:
    """What a router of no model did: some of its tokens go nowhere."""
    rng = np.random.default_rng(seed)

    def choice() -> Int32:
        return np.array([rng.permutation(experts)[:top_k] for _ in range(tokens)], np.int32).reshape(tokens, top_k)

    ids, unbiased = choice(), choice()
    nowhere = rng.random(tokens) < 0.2
    ids[nowhere] = unbiased[nowhere] = -1
    weights = rng.random((tokens, top_k)).astype(np.float32)
    return Routes("layers.4.mlp.route", experts, fixed(ids), fixed(weights), fixed(unbiased) if biased else None)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 12), st.booleans())
def test_what_is_counted(seed: int, tokens: int, biased: bool) -> None:
    made = routes(seed, tokens, biased=biased)
    load = made.load
    counts, weights, there, moved = Counter[int](), Counter[int](), 0, 0
    for place in range(tokens):
        row = [(int(e), float(w)) for e, w in zip(made.ids[place], made.weights[place], strict=True) if e >= 0]
        there += bool(row)
        for expert, weight in row:
            counts[expert] += 1
            weights[expert] += weight
        if made.unbiased is not None:
            with_bias, without = ({*each.tolist()} for each in (made.ids[place], made.unbiased[place]))
            moved += with_bias != without
            replaced = made.displaced(place)
            assert {*replaced} == with_bias - without and {*replaced.values()} == without - with_bias
    assert load.tokens == there and load.moved == moved and load.layer == made.layer == 4
    assert load.counts.tolist() == [counts[e] for e in range(7)]
    assert load.weights.tolist() == pytest.approx([weights[e] for e in range(7)])
    assert load.unused.tolist() == [e for e in range(7) if not counts[e]]
    assert load.shares.tolist() == pytest.approx([counts[e] / max(there, 1) for e in range(7)])
    assert (load.unbiased is None) == (not biased)


@pytest.mark.parametrize(
    ("counts", "entropy", "variation", "peak"),
    [
        ([5, 5, 5, 5], 1.0, 0.0, 1.0),
        ([8, 0, 0, 0], 0.0, math.sqrt(3), 4.0),
        ([3, 3, 0, 0], 0.5, 1.0, 2.0),
        ([2, 1, 1, 0], 0.75, math.sqrt(0.5), 2.0),
        ([9], 1.0, 0.0, 1.0),
    ],
)
def test_balance(counts: list[int], entropy: float, variation: float, peak: float) -> None:
    found = Balance.of(np.array(counts))
    assert (found.entropy, found.variation, found.peak) == pytest.approx((entropy, variation, peak))


def test_the_balance_of_nothing_is_no_number() -> None:
    found = Balance.of(np.zeros(4, np.int64))
    assert all(map(math.isnan, (found.entropy, found.variation, found.peak)))


def test_loads_of_two_texts_are_those_of_both_together() -> None:
    first, second = routes(1), routes(2, tokens=11)
    assert first.unbiased is not None and second.unbiased is not None
    both = Routes(
        first.scope,
        first.experts,
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.unbiased, second.unbiased]),
    ).load
    ids = np.arange(30, dtype=np.int32)
    load = Routing(ids, (first,)).load + Routing(ids[:11], (second,)).load
    (added,) = load.routers
    assert (load.texts, load.tokens) == (2, 41)
    assert (added.tokens, added.moved) == (both.tokens, both.moved)
    assert added.unbiased is not None and both.unbiased is not None
    assert np.array_equal(added.counts, both.counts) and np.array_equal(added.unbiased, both.unbiased)
    assert np.allclose(added.weights, both.weights)


def test_nothing_can_be_written_to() -> None:
    load = routes(1).load + routes(2).load
    for array in (routes(1).ids, load.counts, load.weights, load.unbiased, load.shares, load.unused):
        assert array is not None and not array.flags.writeable
