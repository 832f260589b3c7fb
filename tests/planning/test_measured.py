"""What backends were seen to do, in docs/performance.md, is what their rates say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ernie_rt.build import accepted
from ernie_rt.contract import Device, Target
from ernie_rt.graph.types import DType
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import DENSE_0_3B, MOE_21B_A3B
from ernie_rt.planning.candidates import Planned
from ernie_rt.planning.device import find_device
from ernie_rt.planning.forms import FORMS
from ernie_rt.planning.speed import Predictor

PEAKS = {"float32": 168e9, "bfloat16": 336e9, "int8": 672e9}
FEATURES = frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"})
CONTEXT = 144
WITHIN = 0.2


@pytest.mark.parametrize(
    ("backend", "dtype", "layers", "form", "gigabytes", "measured"),
    [
        ("onnx", "float32", None, "int4", 35.7, 108),
        ("onnx", "float32", None, "int8", 59.7, 91.3),
        ("onnx", "float32", None, "bfloat16", 34.0, 18.5),
        ("eager", "bfloat16", None, "bfloat16", 34.0, 18.4),
        ("onnx", "float32", 28, "int4", 36.0, 13.8),
        ("onnx", "float32", 4, "bfloat16", 31.3, 10.1),
        ("eager", "bfloat16", 4, "bfloat16", 60.1, 9.9),
    ],
)
def test_tokens_a_second(
    backend: str, dtype: DType, layers: int | None, form: str, gigabytes: float, measured: float
) -> None:
    """On two Zen 4 cores, after a prompt of 128: the 0.3B, and so many layers of the 21B."""
    config = DENSE_0_3B
    if layers is not None:
        assert MOE_21B_A3B.moe is not None
        moe = replace(MOE_21B_A3B.moe, moe_layer_end_index=layers - 1)
        config = replace(MOE_21B_A3B, num_hidden_layers=layers, moe=moe)
    device = Device("two cores", "cpu", 24 << 30, gigabytes * 1e9, PEAKS, "measured", FEATURES)
    planner, target = PluginHost().planner(backend), Target(("cpu",), dtype)
    assert planner is not None
    graph = accepted(Planned(config).in_form(FORMS[form], dtype)["main"], planner, target)
    predicted = 1 / Predictor(graph, device, planner.rates(target, device)).step(1, CONTEXT)
    assert measured * (1 - WITHIN) < predicted < measured * (1 + WITHIN), predicted


@pytest.mark.parametrize(
    ("config", "new", "context", "milliseconds"),
    [
        (DENSE_0_3B, 1, 560, 0.486),
        (MOE_21B_A3B, 1, 560, 2.51),
        (MOE_21B_A3B, 4096, 4096, 72.5),
        (MOE_21B_A3B, 32768, 32768, 748),
    ],
)
def test_steps_of_cudagraph(config: ModelConfig, new: int, context: int, milliseconds: float) -> None:
    """On an H200, in bfloat16."""
    device, target = find_device("H200 SXM"), Target(("cuda:0",), "bfloat16")
    planner = PluginHost().planner("cudagraph")
    assert planner is not None
    graph = accepted(Planned(config).in_form(FORMS["bfloat16"], "bfloat16")["main"], planner, target)
    predicted = 1e3 * Predictor(graph, device, planner.rates(target, device)).step(new, context)
    assert milliseconds * (1 - WITHIN) < predicted < milliseconds * (1 + WITHIN), predicted


@pytest.mark.parametrize(
    ("backend", "dtype", "form", "gigabytes", "share"),
    [
        ("onnx", "float32", "int4", 20, 0.85),
        ("onnx", "float32", "int8", 84, 0.5),
        ("onnx", "float32", "float32", 84, 0.85),
        ("eager", "bfloat16", "bfloat16", 20, 0.55),
        ("eager", "bfloat16", "bfloat16", 75.6, 0.2),
    ],
)
def test_where_memory_is_fast_products_wait_for_computing(
    backend: str, dtype: DType, form: str, gigabytes: float, share: float
) -> None:
    device = Device("two cores", "cpu", 24 << 30, gigabytes * 1e9, PEAKS, "measured", FEATURES)
    planner = PluginHost().planner(backend)
    assert planner is not None
    assert planner.rates(Target(("cpu",), dtype), device).weights[form].bandwidth == pytest.approx(share)
    unknown = replace(device, flops={})
    assert planner.rates(Target(("cpu",), dtype), unknown).weights[form].bandwidth in (0.85, 0.55)
