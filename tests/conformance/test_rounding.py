"""The yardstick: what rounding does to an op, and errors measured by it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ernie_rt.conformance.rounding import EPSILON, Rounding, evaluate, multiples, rms, summary
from ernie_rt.contract import Node, OpNumerics, TensorType, Weight
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import DType, Plain

RANDOM = np.random.default_rng(0)


def linear(dtype: DType) -> Node:
    b = Builder()
    weight = Weight("w", TensorType(dtype, (32, 64)), Plain(dtype))
    b("linear", b.input("x", TensorType(dtype, ("N", 64))), weight)
    return b.nodes[0]


def test_epsilons() -> None:
    assert {name: float(ml_dtypes.finfo(name).eps) for name in EPSILON} == EPSILON


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_noise_of_an_op_is_that_of_its_dtype(dtype: DType) -> None:
    x, weight = (RANDOM.standard_normal(shape).astype(dtype).astype(np.float64) for shape in ((50, 64), (32, 64)))
    node, bindings = linear(dtype), {"N": 50}
    (exact,) = evaluate(node, (x, weight, None), bindings)
    (noisy,) = Rounding(OpNumerics(dtype, "float32"), dtype).evaluate(
        node, (x, weight.astype(np.float32), None), bindings
    )
    most = 2 if dtype == "float32" else 0.5  # where sums are as narrow, each term rounds
    assert 0.1 * EPSILON[dtype] < rms(noisy - exact) / rms(exact) < most * EPSILON[dtype]


def test_what_is_declared_counts() -> None:
    """float32 values that are multiplied in bfloat16; and float32 sums of what the graph calls bfloat16."""
    x, weight = RANDOM.standard_normal((50, 64)), RANDOM.standard_normal((32, 64)).astype(np.float32)
    narrow, wide = Rounding(OpNumerics("bfloat16", "float32"), "float32"), OpNumerics("float32", "float32")
    assert narrow.of(TensorType("float32", ())) == "bfloat16"
    assert Rounding(wide, "bfloat16").of(TensorType("bfloat16", ())) == "bfloat16"
    assert Rounding(wide, "bfloat16").of(TensorType("float32", ())) == "float32"
    (exact,) = evaluate(linear("float32"), (x, weight, None), {"N": 50})
    (noisy,) = narrow.evaluate(linear("float32"), (x, weight, None), {"N": 50})
    assert rms(noisy - exact) / rms(exact) > 0.1 * EPSILON["bfloat16"]


def test_errors_in_multiples_of_the_noise() -> None:
    exact = RANDOM.standard_normal((20, 400))
    noise = RANDOM.standard_normal((20, 400)) * 1e-3
    found = exact + 3 * np.roll(noise, 1, axis=1)
    assert multiples(found, exact, exact + noise, 1e-7) == pytest.approx(3, rel=0.3)
    assert multiples(exact, exact, exact + noise, 1e-7) == pytest.approx(0)
    found[7] += 0.1
    error = multiples(found, exact, exact + noise, 1e-7)
    assert error.argmax() == 7 and error[7] == pytest.approx(100, rel=0.2) and summary(error) == error[7] / 2
    lucky = noise.copy()
    lucky[3] = 0
    assert multiples(found, exact, exact + lucky, 1e-7)[3] < 5  # measured by the other tokens
    assert multiples(exact + 1e-9, exact, exact, 1e-6).max() < 0.01  # one rounding is always allowed


def test_what_is_not_finite() -> None:
    exact = RANDOM.standard_normal((5, 40))
    noisy, found = exact + 1e-3, exact + 1e-3
    noisy[2] = np.inf  # overflows when it is rounded, in an order that the backend need not share
    found[4, 0] = np.nan
    error = multiples(found, exact, noisy, 1e-7)
    assert error[[0, 1, 3]] == pytest.approx(1, rel=0.3) and error[2] == 0 and error[4] == np.inf
    exact[0] = 0
    assert multiples(exact, exact, exact, 1e-7)[0] == 0
    found = exact.copy()
    found[0, 0] = 1e-9
    assert multiples(found, exact, exact, 1e-7)[0] == np.inf  # there was nothing to be rounded
