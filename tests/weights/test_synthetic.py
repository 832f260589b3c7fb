from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ernie_rt.errors import BackendError
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.storage.rope import RopeTable, rope_table
from ernie_rt.weights.synthetic import CHUNK, Synthetic, distribution


def weight(name: str, *dims: int) -> Weight:
    return Weight(name, TensorType("bfloat16", dims), Plain("bfloat16"))


def whole(weight: Weight, seed: int = 0, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    out = np.full(weight.type.shape(), np.nan, dtype)
    Synthetic(seed).fill(weight, "data", out)
    return out


EXPERTS = weight("layers.1.mlp.experts.gate_up", 3, 7, 2, 11)
WIDE = weight("layers.1.mlp.down", 5, 2 * CHUNK + 77)


@pytest.mark.parametrize("each", [EXPERTS, WIDE, weight("layers.0.attention.norm", CHUNK + 3)])
def test_slices_have_the_numbers_of_the_whole(each: Weight) -> None:
    out = whole(each)
    for depth in range(1, out.ndim + 1):
        index = tuple(n - 1 for n in out.shape[:depth])
        part = np.empty(out.shape[depth:], np.float32)
        Synthetic().fill(each, "data", part, index)
        np.testing.assert_array_equal(part, out[index])


PINNED = [0.11248692870140076, -0.2902219891548157, -0.5321187973022461]


def test_numbers_depend_on_name_and_seed_alone() -> None:
    assert whole(EXPERTS).ravel()[:3].tolist() == pytest.approx(PINNED, rel=1e-6)
    np.testing.assert_array_equal(whole(EXPERTS), whole(EXPERTS))
    assert (whole(EXPERTS) != whole(EXPERTS, seed=1)).mean() > 0.99
    assert (whole(EXPERTS) != whole(weight("layers.2.mlp.experts.gate_up", 3, 7, 2, 11))).mean() > 0.99


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64], ids=lambda d: np.dtype(d).name)
def test_other_dtypes_and_layouts_hold_the_same_numbers_rounded(dtype: Any) -> None:
    expected = whole(WIDE, dtype=np.float64).astype(dtype)
    for out in (np.empty(WIDE.type.shape(), dtype), np.empty(WIDE.type.shape()[::-1], dtype).T):
        Synthetic().fill(WIDE, "data", out)
        assert (out == expected).all()


@pytest.mark.parametrize(
    ("name", "dims", "mean", "std"),
    [
        ("embed.weight", (400, 512), 0.0, 1.0),
        ("head.weight", (400, 512), 0.0, 1 / math.sqrt(512)),
        ("head.norm", (100_000,), 1.0, 0.05),
        ("layers.3.mlp.norm", (100_000,), 1.0, 0.05),
        ("layers.3.attention.qkv_bias", (100_000,), 0.0, 0.02),
        ("layers.3.mlp.gate_up_bias", (50_000, 2), 0.0, 0.02),
        ("head.bias", (100_000,), 0.0, 0.02),
        ("layers.3.mlp.correction_bias", (100_000,), 0.0, 0.01),
        ("layers.3.mlp.gate", (64, 2560), 0.0, 1 / math.sqrt(2560)),
        ("layers.3.mlp.experts.down", (4, 256, 100), 0.0, 0.1),
    ],
)
def test_scales(name: str, dims: tuple[int, ...], mean: float, std: float) -> None:
    each = weight(name, *dims)
    assert distribution(each) == pytest.approx((mean, std))
    out = whole(each)
    assert out.mean() == pytest.approx(mean, abs=4 * std / math.sqrt(out.size))
    assert out.std() == pytest.approx(std, rel=0.02)
    assert abs(np.corrcoef(out.ravel()[:-1], out.ravel()[1:])[0, 1]) < 0.02


def test_rope_tables_are_the_real_ones_and_requests_are_checked() -> None:
    storage = RopeTable("cos", 10000.0)
    out = np.empty((5, 4), np.float32)
    Synthetic().fill(Weight("rope.cos", TensorType("float32", ("P", 4)), storage), "data", out)
    np.testing.assert_array_equal(out, rope_table(storage, 5, 4))
    with pytest.raises(BackendError, match="does not fit"):
        Synthetic().fill(EXPERTS, "data", out)


@pytest.mark.parametrize("storage", [BlockQuantized(4, 32), BlockQuantized(8, 128)], ids=str)
def test_blocks_have_the_spread_of_plain_numbers(storage: BlockQuantized) -> None:
    source, logical = Synthetic(5), TensorType("bfloat16", (3, 256, 512))
    weight = Weight("layers.1.mlp.experts.down", logical, storage)
    parts = {}
    for name, part in storage.parts(logical).items():
        parts[name] = np.zeros(part.shape(), part.dtype)
        source.fill(weight, name, parts[name])
        row = np.zeros(part.shape()[1:], part.dtype)
        source.fill(weight, name, row, (2,))
        np.testing.assert_array_equal(row, parts[name][2])
    numbers = storage.dequantize(parts)
    assert numbers.std() == pytest.approx(512**-0.5, rel=0.02)
    assert abs(numbers.mean()) < 0.002
    assert len(np.unique(parts["codes"])) == 256
