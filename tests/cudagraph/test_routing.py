"""What comes before the experts: norm, router and shared experts in one launch, choosing, and grouping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.reference.ops import MEANINGS
from ernie_rt_cudagraph.kernels import routing
from ernie_rt_cudagraph.kernels.routing import begin, choose, group
from ernie_rt_cudagraph.kernels.tiles import tiles
from ernie_rt_eager import ops
from support.kernels import check_near, meaning, normal

EVERY = torch.tensor([1 << 30], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "shared", "biased"), [(1, 7, True), (1, 0, False), (3, 40, False), (65, 0, False)])
def test_begin(rows: int, shared: int, biased: bool, dtype: torch.dtype) -> None:
    hidden, experts = 37, 6
    x, norm = normal(rows, hidden, seed=0, dtype=dtype), normal(hidden, seed=1, dtype=dtype, mean=1, scale=0.2)
    gate = normal(experts, hidden, seed=2)
    gate_up = bias = None
    if shared:
        gate_up = normal(2, shared, hidden, seed=3, dtype=dtype, scale=hidden**-0.5).transpose(0, 1)
        bias = normal(shared, 2, seed=4, dtype=dtype) if biased else None
    normed, logits, inner = begin(x, norm, gate, gate_up, bias, eps=1e-5, pdl=False)

    rough, exact = ops.rms_norm(x, norm, eps=1e-5), meaning("rms_norm", x, norm, eps=1e-5)
    check_near(normed, rough, exact)
    # Whatever the norm was rounded to, the router reads just that, and rounds no more.
    expected = meaning("linear", normed, gate)
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-5)
    if gate_up is None:
        assert inner is None
    else:
        assert inner is not None
        exact = meaning("swiglu", meaning("linear", exact, gate_up, bias))
        check_near(inner, ops.swiglu(ops.linear(rough, gate_up, bias)), exact)


@pytest.mark.parametrize(
    ("experts", "top_k", "norm_min"), [(1, 1, 1e-12), (4, 4, 1e-12), (6, 2, 1e-12), (64, 6, 1e-12), (16, 2, 0.75)]
)
@pytest.mark.parametrize("biased", [False, True])
def test_choose(experts: int, top_k: int, norm_min: float, biased: bool) -> None:
    logits, bias = normal(11, experts, seed=0), normal(experts, seed=1, scale=0.05) if biased else None
    attrs = {"top_k": top_k, "norm_min": norm_min}
    ids, weights = choose(logits, bias, dtype=torch.float32, live=EVERY, **attrs)
    exact_bias = None if bias is None else bias.double().numpy()
    expected_ids, expected = MEANINGS["moe_route"](logits.double().numpy(), np.eye(experts), exact_bias, **attrs)
    assert ids.tolist() == expected_ids.tolist()
    np.testing.assert_allclose(weights.numpy(), expected, rtol=2e-6)


def test_weights_are_rounded_to_the_activations_dtype() -> None:
    attrs = {"top_k": 3, "norm_min": 1e-12, "live": EVERY}
    logits = normal(9, 8, seed=0)
    wide, narrow = (choose(logits, None, dtype=dtype, **attrs)[1] for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(narrow, wide.bfloat16())


def test_ties_go_to_the_lowest_ids() -> None:
    logits = torch.zeros(2, 6)
    logits[1, 4:] = 1
    ids, _ = choose(logits, None, top_k=3, norm_min=1e-12, dtype=torch.float32, live=EVERY)
    assert ids.tolist() == [[0, 1, 2], [4, 5, 0]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("places", [slice(None), slice(1, 2)])
def test_a_row_of_no_numbers_chooses_and_stays_alone(value: float, places: slice) -> None:
    logits, bias = normal(3, 6, seed=0), normal(6, seed=1, scale=0.1)
    attrs = {"top_k": 2, "norm_min": 1e-12, "dtype": torch.float32, "live": EVERY}
    ids, weights = choose(logits, bias, **attrs)
    spoilt = logits.clone()
    spoilt[1, places] = value
    with np.errstate(invalid="ignore"):
        found_ids, found_weights = choose(spoilt, bias, **attrs)
    assert torch.equal(found_ids[::2], ids[::2])
    assert torch.equal(found_weights[::2], weights[::2])
    assert len(set(found_ids[1].tolist())) == 2
    assert set(found_ids[1].tolist()) <= set(range(6))


def test_padding_chooses_nobody() -> None:
    live = torch.tensor([2], dtype=torch.int32)
    ids, _ = choose(normal(4, 6, seed=0), None, top_k=3, norm_min=1e-12, dtype=torch.float32, live=live)
    assert (ids[:2] >= 0).all()
    assert (ids[2:] == -1).all()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_group(data: st.DataObject) -> None:
    experts, rows, top_k = (data.draw(st.integers(1, most)) for most in (6, 30, 3))
    ids = torch.tensor(
        data.draw(st.lists(st.integers(-1, experts - 1), min_size=rows * top_k, max_size=rows * top_k)),
        dtype=data.draw(st.sampled_from([torch.int32, torch.int64])),
    ).view(rows, top_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "group_block", lambda pairs: 16)  # several blocks, the last one in part
        order, starts = group(ids, experts)
    expected = [np.flatnonzero(ids.flatten().numpy() == expert) for expert in range(experts)]
    assert starts.tolist() == [0, *np.cumsum([len(pairs) for pairs in expected])]
    assert order[: starts[-1]].tolist() == np.concatenate(expected).tolist()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.sampled_from([1, 16, 32]))
def test_there_are_tiles_enough(counts: list[int], size: int) -> None:
    assert sum(-(-count // size) for count in counts) <= tiles(sum(counts), len(counts), size)


def test_tiles_are_no_more_than_one_choice_can_need() -> None:
    """One pair in each group but the last one, and in that what is left, one more than whole tiles."""
    counts = [1, 1, 1, 33]
    assert sum(-(-count // 16) for count in counts) == tiles(sum(counts), len(counts), 16)
