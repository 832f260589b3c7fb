"""What each operator means, in NumPy, against what its kernels give, for shapes that chance brings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.storage.block_quantized import BlockQuantized
from support.meaning import check, counts, drawn, mlp, normal, normed, rounded, route, seeds, storages, without
from support.operators import Array, experts_in_tiles, in_tiles, run_operator


@drawn
@given(
    rng=seeds, storage=storages, count=counts, blocks=st.integers(1, 5), rows=st.integers(1, 70),
    bias=st.booleans(), norm=st.booleans(), residual=st.booleans(),
)  # fmt: skip
def test_linear(
    kernels: str,
    rng: np.random.Generator,
    storage: BlockQuantized,
    count: int,
    blocks: int,
    rows: int,
    bias: bool,
    norm: bool,
    residual: bool,
) -> None:
    columns, eps = blocks * storage.block, 1e-5
    x = normal(rng, count, columns)
    codes, scales, weight = in_tiles(normal(rng, rows, columns), storage)
    inputs: dict[str, Array | None] = {"x": x, "codes": codes, "scales": scales}
    offset = inputs["bias"] = normal(rng, rows) if bias else None
    factor = inputs["norm"] = 1 + normal(rng, columns) / 8 if norm else None
    added = inputs["residual"] = normal(rng, count, rows) if residual else None
    found = run_operator(kernels, "TiledLinear", inputs, rows=rows, eps=eps)
    y = x if factor is None else normed(x, factor, eps)
    exact = rounded(y, storage.block) @ weight.astype(np.float64).T
    for term in (offset, added):
        exact = exact if term is None else exact + term
    check(found, exact)


@drawn
@given(rng=seeds, storage=storages, count=counts, pairs=st.integers(1, 3), bias=st.booleans())
def test_gate_and_up(
    kernels: str, rng: np.random.Generator, storage: BlockQuantized, count: int, pairs: int, bias: bool
) -> None:
    x, rows = normal(rng, count, storage.block), 16 * pairs
    codes, scales, weight = in_tiles(normal(rng, rows, 2, storage.block), storage)
    offset = normal(rng, rows, 2) if bias else None
    inputs = {"x": x, "codes": codes, "scales": scales, "bias": offset}
    found = run_operator(kernels, "TiledLinear", inputs, rows=rows, eps=0.0)
    exact = np.einsum("nk,rpk->nrp", rounded(x, storage.block), weight.astype(np.float64))
    check(found, exact if offset is None else exact + offset)


@drawn
@given(rng=seeds, storage=storages, rows=st.integers(1, 70), blocks=st.integers(1, 4), count=st.integers(0, 9))
def test_rows(
    kernels: str, rng: np.random.Generator, storage: BlockQuantized, rows: int, blocks: int, count: int
) -> None:
    codes, scales, table = in_tiles(normal(rng, rows, blocks * storage.block), storage)
    ids = rng.integers(0, rows, count).astype(np.int32)
    inputs = {"codes": codes, "scales": scales, "ids": ids}
    found = run_operator(kernels, "TiledRows", inputs, rows=rows, columns=blocks * storage.block)
    np.testing.assert_array_equal(found, table[ids])


FEED_FORWARD = (
    "x", "norm", "router", "correction_bias", "ids", "weights",
    "experts_gate_up_codes", "experts_gate_up_scales", "experts_down_codes", "experts_down_scales",
    "gate_up_codes", "gate_up_scales", "gate_up_bias", "down_codes", "down_scales", "down_bias", "mask",
)  # fmt: skip


@drawn
@given(data=st.data(), rng=seeds, storage=storages, count=counts, norm=st.booleans(), residual=st.booleans())
@pytest.mark.parametrize("routing", ["none", "given", "routed"])
@pytest.mark.parametrize("shared", [False, True])
def test_feed_forward(
    kernels: str,
    routing: str,
    shared: bool,
    data: st.DataObject,
    rng: np.random.Generator,
    storage: BlockQuantized,
    count: int,
    norm: bool,
    residual: bool,
) -> None:
    if routing == "none" and not shared:
        return
    block = storage.block
    hidden, experts = block * data.draw(st.integers(1, 2)), data.draw(st.integers(1, 6))
    top_k, eps = data.draw(st.integers(1, experts)), 1e-5
    inputs: dict[str, Array | None] = dict.fromkeys(FEED_FORWARD)
    x = inputs["x"] = normal(rng, count, hidden)
    y = x
    if norm:
        scale = inputs["norm"] = 1 + normal(rng, hidden) / 8
        y = normed(x, scale, eps)
    exact = x.astype(np.float64) if residual else np.zeros(x.shape)
    if shared:
        width = block * data.draw(st.integers(1, 2))
        codes, scales, gate_up = in_tiles(normal(rng, width, 2, hidden), storage)
        inputs |= {"gate_up_codes": codes, "gate_up_scales": scales}
        codes, scales, down = in_tiles(normal(rng, hidden, width), storage)
        inputs |= {"down_codes": codes, "down_scales": scales}
        if data.draw(st.booleans()):
            inputs |= {"gate_up_bias": normal(rng, width, 2), "down_bias": normal(rng, hidden)}
            exact += inputs["down_bias"]
        exact += mlp(rounded(y, block), gate_up, inputs["gate_up_bias"], down, block)
    if routing != "none":
        codes, scales, gate_up = experts_in_tiles(normal(rng, experts, block, 2, hidden), storage)
        inputs |= {"experts_gate_up_codes": codes, "experts_gate_up_scales": scales}
        codes, scales, down = experts_in_tiles(normal(rng, experts, hidden, block), storage)
        inputs |= {"experts_down_codes": codes, "experts_down_scales": scales}
        if routing == "given":
            ids = np.stack([rng.permutation(experts)[:top_k] for _ in range(count)]) if count else np.zeros((0, top_k))
            ids = np.where(rng.random(ids.shape) < 0.2, -1, ids).astype(np.int32)
            shares = rng.random(ids.shape).astype(np.float32)
            inputs |= {"ids": ids, "weights": shares}
        else:
            router = normal(rng, experts, hidden) / np.float32(np.sqrt(hidden))
            bias = normal(rng, experts) if data.draw(st.booleans()) else None
            inputs |= {"router": router, "correction_bias": bias}
            ids, shares = route(y, router, bias, top_k)
            if data.draw(st.booleans()):
                inputs["mask"] = rng.random(count) < data.draw(st.sampled_from([0, 0.5, 1]))
                ids = np.where(inputs["mask"][:, None], ids, -1)
        for expert in range(experts):
            token, place = np.nonzero(ids == expert)
            parts = mlp(rounded(y[token], block), gate_up[expert], None, down[expert], block)
            np.add.at(exact, token, shares[token, place, None] * parts)
    found = run_operator(
        kernels, "TiledFeedForward", inputs, top_k=top_k, norm_min=1e-12, eps=eps, residual=int(residual)
    )
    check(found, exact, "feed_forward")


def test_equal_scores_go_to_the_lowest_id(kernels: str) -> None:
    storage = BlockQuantized(8, 32)
    rng = np.random.default_rng(0)
    codes, scales, gate_up = experts_in_tiles(normal(rng, 4, 32, 2, 32), storage)
    inputs: dict[str, Array | None] = dict.fromkeys(FEED_FORWARD)
    x = inputs["x"] = normal(rng, 3, 32)
    inputs |= {"router": np.zeros((4, 32), np.float32), "correction_bias": np.array([0, 1, 0, 1], np.float32)}
    inputs |= {"experts_gate_up_codes": codes, "experts_gate_up_scales": scales}
    codes, scales, down = experts_in_tiles(normal(rng, 4, 32, 32), storage)
    inputs |= {"experts_down_codes": codes, "experts_down_scales": scales}
    found = run_operator(kernels, "TiledFeedForward", inputs, top_k=3, norm_min=1e-12, eps=0.0, residual=0)
    parts = [mlp(rounded(x, 32), gate_up[expert], None, down[expert], 32) for expert in (1, 3, 0)]
    check(found, np.sum(parts, 0) / 3, "feed_forward")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_no_number_stays_none(kernels: str, number: float) -> None:
    x = np.ones((3, 64), np.float32)
    x[1, 40] = number
    codes, scales, _ = in_tiles(np.ones((16, 64)), BlockQuantized(4, 32))
    found = run_operator(kernels, "TiledLinear", {"x": x, "codes": codes, "scales": scales}, rows=16, eps=0.0)
    assert np.isnan(found).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-38, 1e-30, 1e30])
def test_numbers_of_any_size(kernels: str, size: float) -> None:
    x = (np.random.default_rng(0).normal(size=(2, 64)) * size).astype(np.float32)
    codes, scales, weight = in_tiles(np.random.default_rng(1).normal(size=(16, 64)), BlockQuantized(8, 32))
    found = run_operator(kernels, "TiledLinear", {"x": x, "codes": codes, "scales": scales}, rows=16, eps=0.0)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    assert np.abs(found - exact).max() <= 0.02 * np.abs(exact).max() + 1e-33


def linear_inputs() -> dict[str, Array | None]:
    codes, scales, _ = in_tiles(np.ones((40, 64)), BlockQuantized(4, 32))
    return {"x": np.ones((3, 64), np.float32), "codes": codes, "scales": scales, "bias": np.ones(40, np.float32)}


def feed_forward_inputs() -> dict[str, Array | None]:
    inputs: dict[str, Array | None] = dict.fromkeys(FEED_FORWARD)
    storage = BlockQuantized(4, 32)
    inputs |= {"x": np.ones((3, 32), np.float32), "norm": np.ones(32, np.float32)}
    inputs |= {"router": np.ones((4, 32), np.float32), "correction_bias": np.ones(4, np.float32)}
    codes, scales, _ = experts_in_tiles(np.ones((4, 64, 2, 32)), storage)
    inputs |= {"experts_gate_up_codes": codes, "experts_gate_up_scales": scales}
    codes, scales, _ = experts_in_tiles(np.ones((4, 32, 64)), storage)
    inputs |= {"experts_down_codes": codes, "experts_down_scales": scales}
    codes, scales, _ = in_tiles(np.ones((64, 2, 32)), storage)
    inputs |= {"gate_up_codes": codes, "gate_up_scales": scales, "gate_up_bias": np.ones((64, 2), np.float32)}
    codes, scales, _ = in_tiles(np.ones((32, 64)), storage)
    inputs |= {"down_codes": codes, "down_scales": scales, "down_bias": np.ones(32, np.float32)}
    inputs["mask"] = np.array([True, False, True])
    return inputs


LINEAR_CASES = [
    (name, axis) for name, array in linear_inputs().items() if array is not None for axis in range(array.ndim)
]
FEED_FORWARD_CASES = [
    (name, axis) for name, array in feed_forward_inputs().items() if array is not None for axis in range(array.ndim)
]


@pytest.mark.parametrize("name, axis", LINEAR_CASES)
def test_linear_of_wrong_shapes(kernels: str, name: str, axis: int) -> None:
    assert run_operator(kernels, "TiledLinear", linear_inputs(), rows=40, eps=0.0).shape == (3, 40)
    if (name, axis) == ("x", 0):
        return
    with pytest.raises(Exception, match=r"TiledLinear: .*(expected|is no weight|another weight)"):
        run_operator(kernels, "TiledLinear", without(linear_inputs(), name, axis), rows=40, eps=0.0)


@pytest.mark.parametrize("name, axis", FEED_FORWARD_CASES)
def test_feed_forward_of_wrong_shapes(kernels: str, name: str, axis: int) -> None:
    attrs: dict[str, Any] = {"top_k": 2, "norm_min": 1e-12, "eps": 1e-5, "residual": 1}
    assert run_operator(kernels, "TiledFeedForward", feed_forward_inputs(), **attrs).shape == (3, 32)
    if (name, axis) == ("x", 0):
        return
    with pytest.raises(Exception, match=r"TiledFeedForward: .*(expected|is no weight|another weight)"):
        run_operator(kernels, "TiledFeedForward", without(feed_forward_inputs(), name, axis), **attrs)


@pytest.mark.parametrize("missing", ["experts_down_codes", "down_scales", "experts_gate_up_scales"])
def test_half_a_weight(kernels: str, missing: str) -> None:
    inputs = feed_forward_inputs() | {missing: None}
    with pytest.raises(Exception, match=f"TiledFeedForward: no input {missing}"):
        run_operator(kernels, "TiledFeedForward", inputs, top_k=2, norm_min=1e-12, eps=1e-5, residual=1)


@pytest.mark.parametrize("top_k", [0, -1, 5])
def test_more_choices_than_experts(kernels: str, top_k: int) -> None:
    with pytest.raises(Exception, match=r"TiledFeedForward: top_k is .*, expected 1 to 4"):
        run_operator(
            kernels, "TiledFeedForward", feed_forward_inputs(), top_k=top_k, norm_min=1e-12, eps=1e-5, residual=1
        )


@pytest.mark.parametrize("id", [-1, 20, 2**31 - 1])
def test_a_row_that_is_none(kernels: str, id: int) -> None:
    codes, scales, _ = in_tiles(np.ones((20, 32)), BlockQuantized(8, 32))
    inputs: dict[str, Array | None] = {"codes": codes, "scales": scales, "ids": np.array([3, id], np.int32)}
    with pytest.raises(Exception, match=f"TiledRows: ids hold {id}, expected 0 to 19"):
        run_operator(kernels, "TiledRows", inputs, rows=20, columns=32)


def test_an_expert_that_is_none(kernels: str) -> None:
    inputs = feed_forward_inputs() | {"router": None, "correction_bias": None, "mask": None}
    inputs |= {"ids": np.full((3, 2), 4, np.int32), "weights": np.ones((3, 2), np.float32)}
    with pytest.raises(Exception, match="TiledFeedForward: ids hold 4, expected -1 to 3"):
        run_operator(kernels, "TiledFeedForward", inputs, top_k=2, norm_min=1e-12, eps=1e-5, residual=1)


def test_blocks_larger_than_any(kernels: str) -> None:
    """Codes and scales of one block of 256, as far as their shapes say."""
    x, codes, scales = np.ones((48, 256), np.float32), np.zeros((16, 2048), np.uint8), np.ones((16, 16), np.float16)
    inputs = {"x": x, "codes": codes, "scales": scales}
    with pytest.raises(Exception, match=r"TiledLinear: .* is no weight of 256 columns in tiles"):
        run_operator(kernels, "TiledLinear", inputs, rows=256, eps=0.0)
