"""ONNX Runtime against transformers, and on quantised weights against what their codes stand for in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import ernie_rt
from ernie_rt.graph.types import Weight
from ernie_rt.location import locate
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.quantized import QuantizedSource

if TYPE_CHECKING:
    from support.judge import Oracle

WITHIN_FLOAT32 = 2e-5
ABLE = [
    "dense-tied", "dense-head-dim", "moe", "moe-leading-dense", "moe-interval", "moe-end", "moe-bias", "dense-bias",
]  # fmt: skip
"""GroupQueryAttention takes no heads of 8, as others have."""
QUANTIZED = ["dense-tied", "moe", "moe-leading-dense"]


@pytest.mark.parametrize("name", ABLE)
def test_float32(name: str, oracle_of: Callable[[str], Oracle], measured: Callable[[str, float, float], None]) -> None:
    from support.judge import worst

    oracle = oracle_of(name)
    with ernie_rt.load(oracle.folder, backend="onnx", device="cpu", dtype="float32") as model:
        for length, ids in oracle.prompts.items():
            error = worst(model.logits(ids), oracle.logits[length])
            measured(f"onnx float32, {length} tokens", error, WITHIN_FLOAT32)
            tokens = model.generate_ids(ids, max_new_tokens=48, temperature=0, ignore_eos=True)
            assert tokens == oracle.greedy[length], f"after {length} tokens"


@pytest.mark.parametrize("name", QUANTIZED)
def test_int4_is_what_its_codes_say(
    name: str,
    oracle_of: Callable[[str], Oracle],
    measured: Callable[[str, float, float], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At accuracy level 0, where activations stay float32."""
    monkeypatch.setattr("ernie_rt_onnx.backend.ACCURACY_LEVEL", 0)
    oracle = oracle_of(name)
    quantize_model(oracle.folder, locate(oracle.folder).config, tmp_path / "int4", Quantization(4))
    ids = oracle.prompts[200]
    found = {}
    for backend, dtype in (("onnx", "float32"), ("reference", "float64")):
        with ernie_rt.load(tmp_path / "int4", backend=backend, device="cpu", dtype=dtype) as model:
            found[backend] = model.logits(ids)
            assert ("dequantised" in " ".join(model.memory().notes)) == (backend == "reference")
    error = np.abs(found["onnx"] - found["reference"]).max() / np.sqrt(np.mean(found["reference"] ** 2))
    measured("onnx int4, accuracy level 0, beside its codes in float64", float(error), WITHIN_FLOAT32)


def test_codes_are_read_where_they_lie(
    oracle_of: Callable[[str], Oracle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime maps the folder's files; nothing copies codes and scales before it. Progress counts them too."""
    oracle = oracle_of("moe")
    quantize_model(oracle.folder, locate(oracle.folder).config, tmp_path / "int8", Quantization(8))
    filled = set()
    fill = QuantizedSource.fill

    def watched(self: QuantizedSource, weight: Weight, part: str, *rest: Any) -> None:
        filled.add(part)
        fill(self, weight, part, *rest)

    monkeypatch.setattr(QuantizedSource, "fill", watched)
    told: list[tuple[int, int]] = []
    with ernie_rt.load(
        tmp_path / "int8", backend="onnx", dtype="float32", progress=lambda *each: told.append(each)
    ) as model:
        assert np.isfinite(model.logits([5, 6, 7])).all()
    assert filled == {"data"}
    assert told[-1][0] == told[-1][1]
