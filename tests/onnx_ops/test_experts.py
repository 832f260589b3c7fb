"""Experts in place of the functions MoE and QMoE: their meaning in NumPy against what the kernels give."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.storage.block_quantized import BlockQuantized
from support.meaning import check, counts, drawn, mlp, normal, rounded, route, seeds, storages, without
from support.operators import Array, run_operator

WITHIN: Final = 2e-5
"""Of the rms, where nothing is rounded."""
MOE = ("x", "router", "correction_bias", "gate_up", "down")
QMOE = ("x", "router", "correction_bias", "gate_up", "gate_up_scales", "down", "down_scales")


def experts(
    x: Array, router: Array, bias: Array | None, gate_up: Array, down: Array, top_k: int, block: int | None = None
) -> Array:
    """Of gate_up `[E, 2I, H]`, gate and up in turn; activations are rounded in blocks where one is given."""
    exact = np.zeros(x.shape)
    ids, shares = route(x, router, bias, top_k)
    for expert, (rows, columns) in enumerate(zip(gate_up, down, strict=True)):
        token, place = np.nonzero(ids == expert)
        parts = mlp(rounded(x[token], block), rows.reshape(-1, 2, x.shape[1]), None, columns, block)
        np.add.at(exact, token, shares[token, place, None] * parts)
    return exact


def close(found: Array, exact: Array) -> None:
    assert found.shape == exact.shape
    if exact.size:
        assert np.abs(found - exact).max() <= WITHIN * np.sqrt(np.mean(exact**2))


def drawn_routing(data: st.DataObject, rng: np.random.Generator, hidden: int) -> tuple[Array, Array | None, int]:
    """A router of some experts, a bias or none, and how many are chosen."""
    number = data.draw(st.integers(1, 6))
    router = normal(rng, number, hidden) / np.float32(np.sqrt(hidden))
    return router, normal(rng, number) if data.draw(st.booleans()) else None, data.draw(st.integers(1, number))


def run_moe(kernels: str, inputs: dict[str, Array | None], **attrs: int) -> Array:
    """What comes out in float32; in float16 the same numbers have to give the same, rounded at the end alone."""
    op = "QMoE" if "down_scales" in inputs else "MoE"
    halves = {
        name: array.astype(np.float16)
        for name, array in inputs.items()
        if array is not None and array.dtype == np.float32 and name in ("x", "gate_up", "down")
    }
    narrow = run_operator(kernels, op, inputs | halves, **attrs)
    assert narrow.dtype == np.float16
    wide = {name: array.astype(np.float32) for name, array in halves.items()}
    np.testing.assert_array_equal(narrow, run_operator(kernels, op, inputs | wide, **attrs).astype(np.float16))
    found: Array = run_operator(kernels, op, inputs, **attrs)
    return found


@drawn
@given(data=st.data(), rng=seeds, count=counts, hidden=st.integers(1, 70), width=st.integers(1, 70))
def test_moe(kernels: str, data: st.DataObject, rng: np.random.Generator, count: int, hidden: int, width: int) -> None:
    router, bias, top_k = drawn_routing(data, rng, hidden)
    x = normal(rng, count, hidden)
    gate_up = normal(rng, len(router), 2 * width, hidden) / np.float32(np.sqrt(hidden))
    down = normal(rng, len(router), hidden, width) / np.float32(np.sqrt(width))
    found = run_moe(kernels, dict(zip(MOE, (x, router, bias, gate_up, down), strict=True)), top_k=top_k)
    close(found, experts(x, router, bias, gate_up, down, top_k))


def quantized(values: Array, storage: BlockQuantized) -> tuple[Array, Array, Array]:
    """Codes and scales in the layout raw, and the numbers that they stand for."""
    parts, _, _ = storage.quantize(values, search=False, where="a test")
    return parts["codes"], parts["scales"], storage.dequantize(parts)


@drawn
@given(data=st.data(), rng=seeds, storage=storages, count=counts)
@pytest.mark.parametrize("level", [0, 4])
def test_qmoe(
    kernels: str, level: int, data: st.DataObject, rng: np.random.Generator, storage: BlockQuantized, count: int
) -> None:
    many = [35] if storage.block == 32 else []  # scales, of which kernels take several at once
    hidden = storage.block * data.draw(st.sampled_from([1, 2, 3, *many]))
    width = storage.block * data.draw(st.integers(1, 3))
    router, bias, top_k = drawn_routing(data, rng, hidden)
    x = normal(rng, count, hidden)
    codes, scales, gate_up = quantized(normal(rng, len(router), 2 * width, hidden) / np.sqrt(hidden), storage)
    down_codes, down_scales, down = quantized(normal(rng, len(router), hidden, width) / np.sqrt(width), storage)
    inputs = dict(zip(QMOE, (x, router, bias, codes, scales, down_codes, down_scales), strict=True))
    attrs = {"bits": storage.bits, "block_size": storage.block, "accuracy_level": level}
    found = run_moe(kernels, inputs, top_k=top_k, **attrs)
    exact = experts(x, router, bias, gate_up, down, top_k, storage.block if level else None)
    if level:
        check(found, exact, "feed_forward")
    else:
        close(found, exact)


def moe_inputs() -> dict[str, Array | None]:
    shapes = ((3, 32), (4, 32), (4,), (4, 64, 32), (4, 32, 32))
    return {name: np.ones(shape, np.float32) for name, shape in zip(MOE, shapes, strict=True)}


def qmoe_inputs() -> dict[str, Array | None]:
    codes, scales, _ = quantized(np.ones((4, 64, 32), np.float32), BlockQuantized(4, 32))
    inputs = moe_inputs()
    inputs |= {"gate_up": codes, "gate_up_scales": scales, "down": codes[:, :32], "down_scales": scales[:, :32]}
    return {name: inputs[name] for name in QMOE}


ATTRS: Final[dict[str, dict[str, int]]] = {
    "MoE": {"top_k": 2},
    "QMoE": {"top_k": 2, "bits": 4, "block_size": 32, "accuracy_level": 4},
}
CASES = [
    (op, name, axis)
    for op, inputs in (("MoE", moe_inputs()), ("QMoE", qmoe_inputs()))
    for name, array in inputs.items()
    if array is not None
    for axis in range(array.ndim)
]


def usual(op: str) -> dict[str, Array | None]:
    return moe_inputs() if op == "MoE" else qmoe_inputs()


def test_equal_scores_go_to_the_lowest_id(kernels: str) -> None:
    rng = np.random.default_rng(0)
    inputs = moe_inputs() | {"gate_up": normal(rng, 4, 64, 32), "down": normal(rng, 4, 32, 32), "x": normal(rng, 3, 32)}
    inputs |= {"router": np.zeros((4, 32), np.float32), "correction_bias": np.array([0, 1, 0, 1], np.float32)}
    found = run_operator(kernels, "MoE", inputs, top_k=3)
    gate_up, down, x = (np.asarray(inputs[name]) for name in ("gate_up", "down", "x"))
    parts = [mlp(x, gate_up[e].reshape(-1, 2, 32), None, down[e], None) for e in (1, 3, 0)]
    close(found, np.sum(parts, 0) / 3)


def test_experts_whose_probability_is_next_to_nothing(kernels: str) -> None:
    """A bias may choose such; among themselves they weigh as their logits say."""
    rng = np.random.default_rng(1)
    x, bias = np.ones((2, 32), np.float32), np.array([0, 2, 2, 0], np.float32)
    router = np.outer([9, -9, -9.03, 8], np.ones(32)).astype(np.float32)
    inputs = moe_inputs() | {"gate_up": normal(rng, 4, 64, 32), "down": normal(rng, 4, 32, 32)}
    inputs |= {"x": x, "router": router, "correction_bias": bias}
    gate_up, down = (np.asarray(inputs[name]) for name in ("gate_up", "down"))
    close(run_operator(kernels, "MoE", inputs, top_k=2), experts(x, router, bias, gate_up, down, 2))


@pytest.mark.parametrize("op", ATTRS)
def test_no_number_stays_none(kernels: str, op: str) -> None:
    inputs = usual(op)
    x = np.ones((3, 32), np.float32)
    x[1, 7] = np.nan
    found = run_operator(kernels, op, {**inputs, "x": x}, **ATTRS[op])
    assert np.isnan(found).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("op, name, axis", CASES)
def test_wrong_shapes(kernels: str, op: str, name: str, axis: int) -> None:
    assert run_operator(kernels, op, usual(op), **ATTRS[op]).shape == (3, 32)
    if (name, axis) == ("x", 0):
        return
    with pytest.raises(Exception, match=rf"{op}: .*expected"):
        run_operator(kernels, op, without(usual(op), name, axis), **ATTRS[op])


@pytest.mark.parametrize(
    "op, name, dtype",
    [("MoE", "x", np.float64), ("MoE", "down", np.float16), ("QMoE", "gate_up", np.int8),
     ("QMoE", "down_scales", np.float32), ("QMoE", "router", np.float16)],
)  # fmt: skip
def test_wrong_types(kernels: str, op: str, name: str, dtype: Any) -> None:
    inputs = usual(op)
    with pytest.raises(Exception, match=r"[Tt]ype"):
        run_operator(kernels, op, {**inputs, name: np.asarray(inputs[name]).astype(dtype)}, **ATTRS[op])


@pytest.mark.parametrize(
    "name, value, expected",
    [("top_k", 0, "1 to 4"), ("top_k", 5, "1 to 4"), ("bits", 2, "4 or 8"), ("block_size", 16, "32 or 64 or 128"),
     ("accuracy_level", 2, "0 or 4")],
)  # fmt: skip
def test_wrong_attributes(kernels: str, name: str, value: int, expected: str) -> None:
    with pytest.raises(Exception, match=f"QMoE: {name} is {value}, expected {expected}"):
        run_operator(kernels, "QMoE", qmoe_inputs(), **{**ATTRS["QMoE"], name: value})


@pytest.mark.parametrize("op", ["MoE", "QMoE"])
def test_rows_without_a_number(kernels: str, op: str) -> None:
    inputs = {**usual(op), "x": np.ones((3, 0), np.float32)}
    with pytest.raises(Exception, match=rf"{op}: x is \[3, 0\], expected rows of 1 or more"):
        run_operator(kernels, op, inputs, **ATTRS[op])


def test_rows_of_half_a_block(kernels: str) -> None:
    with pytest.raises(Exception, match=r"QMoE: gate_up is .* expected rows of whole blocks of 64"):
        run_operator(kernels, "QMoE", qmoe_inputs(), **{**ATTRS["QMoE"], "block_size": 64})
