from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import CheckpointError, GraphError
from ernie_rt.graph.json import storage_from_json
from ernie_rt.graph.types import Plain, Storage, TensorType, Weight
from ernie_rt.storage.block_quantized import SHRINK, BlockQuantized
from ernie_rt.storage.rope import RopeTable
from ernie_rt.weights.manifest import STORAGES as KNOWN

Array = np.ndarray[Any, Any]
STORAGES = [BlockQuantized(bits, block) for bits in (4, 8) for block in (32, 64, 128)]  # type: ignore[arg-type]


def quantize(values: Array, storage: BlockQuantized, *, search: bool, where: str) -> tuple[Array, Array, float, float]:
    parts, error, energy = storage.quantize(values, search=search, where=where)
    return parts["codes"], parts["scales"], error, energy


def dequantize(codes: Array, scales: Array, storage: BlockQuantized) -> Array:
    return storage.dequantize({"codes": codes, "scales": scales})


def to_tiles(codes: Array, scales: Array, storage: BlockQuantized) -> tuple[Array, Array]:
    parts = storage.laid_out("tiled").pack({"codes": codes, "scales": scales})
    return parts["codes"], parts["scales"]


def from_tiles(codes: Array, scales: Array, storage: BlockQuantized) -> tuple[Array, Array]:
    rows = 16 * len(codes)
    parts = storage.laid_out("tiled").rows({"codes": codes, "scales": scales}, codes.ndim - 1, 0, rows)
    return parts["codes"], parts["scales"]


def normal(*shape: int, seed: int = 0) -> Array:
    """Numbers that are exact in bfloat16."""
    values = np.random.default_rng(seed).normal(0, 0.02, shape)
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_the_low_nibble_is_the_even_number() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :4] = -8, 3, 0, 7
    codes, scales, error, energy = quantize(values, BlockQuantized(4, 32), search=False, where="w")
    assert scales.tolist() == [[1.0]]
    assert codes.tobytes() == bytes([0xB0, 0xF8]) + bytes([0x88]) * 14
    assert (error, energy) == (0.0, 64.0 + 9 + 49)
    assert dequantize(codes, scales, BlockQuantized(4, 32)).tolist() == values.tolist()


def test_bytes_are_numbers_above_128() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :4] = -64, 3, 0.5, 63.5
    codes, scales, error, _ = quantize(values, BlockQuantized(8, 32), search=False, where="w")
    assert scales.tolist() == [[0.5]]
    assert codes.tobytes() == bytes([0, 134, 129, 255]) + bytes([128]) * 28
    assert error == 0.0
    assert dequantize(codes, scales, BlockQuantized(8, 32)).tolist() == values.tolist()


def test_the_scale_takes_the_sign_of_the_number_farthest_from_zero() -> None:
    values = np.zeros((2, 32), np.float32)
    values[0, :2], values[1, :2] = (4, -4), (4.5, -4)  # of two as far the negative one
    codes, scales, _, _ = quantize(values, BlockQuantized(4, 32), search=False, where="w")
    assert scales[:, 0].tolist() == [0.5, -0.5625]
    assert codes[:, 0].tolist() == [0x0F, 0xF0]


def in_python(block: list[float], bits: int, search: bool) -> tuple[list[int], float]:
    """Codes and scale of a block, number by number; float32 where the specification says a float32 result."""
    zero = 2 ** (bits - 1)
    low, high = np.float32(-zero), np.float32(zero - 1)
    top, bottom = max(block), min(block)
    farthest = np.float32(top if top > -bottom else bottom)
    scales = [farthest / low]
    if search:
        scales += [farthest * (np.float32(f) / end) for f, end in itertools.product(SHRINK, (low, high))]
    best: tuple[float, list[int], float] | None = None
    for wanted in scales:
        scale = float(np.float16(wanted))
        if scale == 0 and wanted != 0:
            scale = math.copysign(2.0**-24, wanted)
        ratios = [float(np.float32(x) / np.float32(scale or 1.0)) for x in block]
        codes = [min(max(round(ratio), -zero), zero - 1) for ratio in ratios]
        error = float(sum(Fraction(r - c) ** 2 for r, c in zip(ratios, codes, strict=True))) * scale**2
        if best is None or error < best[0] * (1 - 1e-5):
            best = error, codes, scale
    assert best is not None
    return [code + zero for code in best[1]], best[2]


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("storage", [BlockQuantized(4, 32), BlockQuantized(8, 64)], ids=str)
def test_it_is_what_plain_python_computes(storage: BlockQuantized, search: bool) -> None:
    values = normal(6, 128)
    values[1, :64] = 0
    values[2] *= 1e-5  # scales are subnormal in float16
    values[3, ::3] = 0
    values[4] *= 1e5
    codes, scales, error, energy = quantize(values, storage, search=search, where="w")
    unpacked = codes if storage.bits == 8 else np.stack((codes & 15, codes >> 4), axis=-1).reshape(values.shape)
    for row, start in itertools.product(range(6), range(0, 128, storage.block)):
        block = values[row, start : start + storage.block].tolist()
        expected, scale = in_python(block, storage.bits, search)
        assert scales[row, start // storage.block] == scale
        assert unpacked[row, start : start + storage.block].tolist() == expected
    found = dequantize(codes, scales, storage).astype(np.float64)
    np.testing.assert_allclose(error, np.square(found - values).sum(), rtol=1e-4)
    np.testing.assert_allclose(energy, np.square(values.astype(np.float64)).sum(), rtol=1e-5)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_no_number_is_off_by_more_than_its_scale(storage: BlockQuantized) -> None:
    values = normal(40, 256)
    codes, scales, error, energy = quantize(values, storage, search=False, where="w")
    off = np.abs(dequantize(codes, scales, storage) - values).reshape(-1, storage.block)
    step = np.abs(scales.astype(np.float32)).reshape(-1, 1)
    assert (off <= step * 1.01).all()
    assert (off > step * 0.51).mean() < 0.02  # all but those beyond the highest code
    _, _, searched, _ = quantize(values, storage, search=True, where="w")
    assert searched < error < energy * (0.12 if storage.bits == 4 else 0.008) ** 2


@given(st.lists(st.floats(-4e5, 4e5, width=32), min_size=32, max_size=32), st.sampled_from([4, 8]))
def test_any_block(numbers: list[float], bits: Any) -> None:
    values, storage = np.array([numbers], np.float32), BlockQuantized(bits, 32)
    plain = quantize(values, storage, search=False, where="w")
    best = quantize(values, storage, search=True, where="w")
    assert best[2] <= plain[2] * (1 + 1e-6)
    for codes, scales, _, _ in (plain, best):
        found = dequantize(codes, scales, storage)
        farthest = np.abs(values).max()
        assert np.isfinite(found).all()
        assert np.abs(found - values).max() <= max(farthest * (0.3 if bits == 4 else 0.25), 2.0**-23)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_by_name(number: float) -> None:
    values = normal(40, 3200)
    values[39, 3199] = number
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down: numbers that are NaN or infinite"):
        quantize(values, BlockQuantized(4, 32), search=True, where="layers.1.mlp.down")


def test_what_float16_scales_cannot_hold_is_refused() -> None:
    values = np.full((1, 32), 65504 * 7, np.float32)
    codes, scales, _, _ = quantize(values, BlockQuantized(4, 32), search=True, where="w")
    assert dequantize(codes, scales, BlockQuantized(4, 32)).max() == 65504 * 7
    values[0, 5] *= 1.01
    with pytest.raises(CheckpointError, match=r"w: a number is too large for a float16 scale; expected at most 458528"):
        quantize(values, BlockQuantized(4, 32), search=False, where="w")


def test_numbers_are_exact() -> None:
    """Every code times every kind of scale, against Python's own arithmetic."""
    scales = np.array([[1.0, -0.3, 2.0**-24, 65504.0, 0.0, 6.1e-5, 1e-6, 0.02]], np.float16)
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256)
    found = dequantize(codes, scales, BlockQuantized(8, 32))
    for k in range(256):
        assert float(found[0, k]) == (k - 128) * float(scales[0, k // 32])


@pytest.mark.parametrize("pair", [(), (2,)], ids=["rows", "gate and up"])
@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_a_tile_is_as_it_is_described(storage: BlockQuantized, pair: tuple[int, ...]) -> None:
    rng, columns = np.random.default_rng(1), 256
    codes = rng.integers(0, 256, (32, *pair, columns * storage.bits // 8), np.uint8)
    scales = rng.normal(size=(32, *pair, columns // storage.block)).astype(np.float16)
    tiles, tiled_scales = to_tiles(codes, scales, storage)
    assert tiles.shape == (2, *pair, 16 * codes.shape[-1]) and tiled_scales.shape == (2, *pair, 16 * scales.shape[-1])
    for tile, row, *half in itertools.product(range(2), range(16), *map(range, pair)):
        numbers = codes[(tile * 16 + row, *half)]
        stored, stored_scales = tiles[(tile, *half)], tiled_scales[(tile, *half)]
        for k in range(columns):
            if storage.bits == 8:
                found, expected = stored[k // 4 * 64 + row * 4 + k % 4], numbers[k]
            else:
                byte = stored[k // 8 * 64 + row * 4 + k % 4]
                found = byte >> 4 if k % 8 >= 4 else byte & 15
                expected = numbers[k // 2] >> 4 if k % 2 else numbers[k // 2] & 15
            assert found == expected
        assert stored_scales[row::16].tolist() == scales[(tile * 16 + row, *half)].tolist()
    back = from_tiles(tiles, tiled_scales, storage)
    assert (back[0] == codes).all() and (back[1] == scales).all()


def test_zeros_fill_the_last_tile() -> None:
    storage = BlockQuantized(4, 32)
    codes, scales, _, _ = quantize(normal(19, 64), storage, search=False, where="w")
    tiles = to_tiles(codes, scales, storage)
    found = dequantize(*from_tiles(*tiles, storage), storage)
    assert found.shape == (32, 64) and not found[19:].any()
    assert (found[:19] == dequantize(codes, scales, storage)).all()


def test_parts_and_bytes() -> None:
    experts = TensorType("bfloat16", (64, 1536, 2, 2560))
    raw = Weight("w", experts, BlockQuantized(4, 32), paired=True)
    assert {name: str(part) for name, part in raw.parts.items()} == {
        "codes": "u8[64, 1536, 2, 1280]",
        "scales": "f16[64, 1536, 2, 80]",
    }
    assert raw.nbytes() == 64 * 1536 * 2 * 2560 * 9 // 16
    tiled = BlockQuantized(8, 128, "tiled")
    assert {name: str(part) for name, part in tiled.parts(experts, paired=True).items()} == {
        "codes": "u8[64, 96, 2, 40960]",
        "scales": "f16[64, 96, 2, 320]",
    }
    assert [str(part) for part in tiled.parts(TensorType("float32", (1000, 256))).values()] == [
        "u8[63, 4096]",
        "f16[63, 32]",
    ]
    assert (str(BlockQuantized(4, 32)), str(tiled)) == ("int4/32", "int8/128 tiled")


def test_what_cannot_be_stored_so() -> None:
    assert BlockQuantized(4, 32).problem(TensorType("float32", (7, 96))) is None
    assert BlockQuantized(4, 64).problem(TensorType("float32", (7, 96))) == "blocks of 64 do not divide its last axis"
    assert BlockQuantized(4, 32, "tiled").problem(TensorType("float32", (7, 96))) is None
    for dims in ((3, 24, 64), (3, 24, 2, 64)):
        problem = BlockQuantized(4, 32, "tiled").problem(TensorType("float32", dims), paired=len(dims) == 4)
        assert "the rows of an expert" in str(problem)
    assert BlockQuantized(4, 32, "tiled").problem(TensorType("float32", (24, 2, 64)), paired=True) is None


def test_gate_and_up_are_not_guessed_from_a_size() -> None:
    """Experts of two rows each are no pairs of gate and up, and two experts of whole tiles none of one."""
    tiled, two = BlockQuantized(4, 32, "tiled"), TensorType("float32", (32, 2, 64))
    assert "the rows of an expert" in str(tiled.problem(two))
    assert tiled.problem(two, paired=True) is None
    assert (Weight("w", two, tiled).row, Weight("w", two, tiled, paired=True).row) == ((64,), (2, 64))


@pytest.mark.parametrize(
    "storage", [*STORAGES, BlockQuantized(4, 32, "tiled"), Plain("float16"), RopeTable("cos", 5e5)], ids=str
)
def test_json(storage: Storage) -> None:
    assert storage_from_json(storage.to_json(), KNOWN) == storage


@pytest.mark.parametrize(
    "changed",
    [
        {"bits": 3},
        {"bits": "4"},
        {"block": 16},
        {"layout": "other"},
        {"layout": None},
        {"kind": "other"},
        {"bits": 4.0},
        {"block": True},
        {"x": 1},
    ],
    ids=str,
)
def test_bad_json(changed: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, GraphError)):
        storage_from_json(BlockQuantized(4, 32).to_json() | changed, KNOWN)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_onnx_runtime_reads_the_same_numbers(storage: BlockQuantized) -> None:
    """MatMulNBits multiplies by what `dequantize` says; int8 on codes and scales as they are, negative scales too."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    columns, rows = 256, 24
    codes, scales, _, _ = quantize(normal(rows, columns), storage, search=True, where="w")
    assert (scales < 0).any() and (scales > 0).any()
    weights = {
        "codes": codes.reshape(rows, columns // storage.block, -1),
        "scales": scales.astype(np.float32),
    }
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft",
        K=columns, N=rows, bits=storage.bits, block_size=storage.block,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, rows])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).normal(size=(5, columns)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    expected = x.astype(np.float64) @ dequantize(codes, scales, storage).astype(np.float64).T
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
