"""What backends say of themselves before they are imported, beside what they say and hold when they run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.build import build
from ernie_rt.contract import Limits, Target
from ernie_rt.graph.types import DType, Storage
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.weights.hub import DEMO
from ernie_rt.weights.quantize import Quantization, quantize_model
from support.configs import small

LIMITS = Limits(max_context=96, max_sequences=3, max_batch_tokens=40)
DENSE = {"model_type": "ernie4_5", "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
MOE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "moe_intermediate_size": 32}
MODELS = {
    "dense": small(**DENSE),
    "experts": small(**MOE),
    "with a head of its own": small(**MOE, tie_word_embeddings=False, use_bias=True),
}
TARGETS: tuple[tuple[str, str, DType], ...] = (
    ("onnx", "cpu", "float32"),
    ("onnx", "cpu", "float16"),
    ("eager", "cpu", "bfloat16"),
    ("eager", "cpu", "float32"),
    ("reference", "cpu", "float32"),
    ("cudagraph", "cpu", "bfloat16"),
)
QUANTIZED = {f"int{how.bits} {how.layout}": how for how in (Quantization(4), Quantization(8, layout="tiled"))}


def storages(config: ModelConfig, how: Quantization | None) -> dict[str, Storage]:
    return {} if how is None else {weight.name: weight.storage for weight in how.weights(config)}


@pytest.mark.parametrize(
    ("model", "how"),
    [*((model, None) for model in MODELS), ("experts", "int4 raw"), ("dense", "int8 tiled")],
)
@pytest.mark.parametrize(("name", "device", "dtype"), TARGETS)
def test_a_planner_says_what_its_backend_says(
    name: str, device: str, dtype: DType, model: str, how: str | None
) -> None:
    host, config, target = PluginHost(), MODELS[model], Target((device,), dtype)
    if host.missing(name) is not None:
        pytest.skip(f"{name} is not installed")
    backend, planner = host.backend(name), host.planner(name)
    assert planner is not None
    stored = storages(config, QUANTIZED.get(how or ""))
    assert all(planner.accepts(s, target) == backend.accepts(s, target) for s in stored.values())
    ready = build(config, backend, target, stored)
    assert planner.bill(ready.graphs, target, LIMITS) == backend.bill(ready.lowerings, target, LIMITS)


def test_the_bill_of_onnx_is_of_what_its_sessions_are_given() -> None:
    """Its weights are counted by a rule; here by the parameters that it writes."""
    pytest.importorskip("onnxruntime")
    from ernie_rt_onnx.backend import ACCURACY_LEVEL
    from ernie_rt_onnx.executable import emit_all

    backend = PluginHost().backend("onnx")
    for config in MODELS.values():
        for how in (None, *QUANTIZED.values()):
            for dtype in ("float32", "float16"):
                target = Target(("cpu",), dtype)
                ready = build(config, backend, target, storages(config, how))
                emitter = emit_all(ready.lowerings, target, LIMITS, ACCURACY_LEVEL)["main"]
                given = sum(
                    each.weight.parts[each.part].with_dtype(each.dtype).nbytes(emitter.bindings)
                    for each in emitter.parameters.values()
                )
                assert ready.bill(LIMITS).weight_bytes == given


MEASURED = """
import json, sys
from ernie_rt.cli.output import PeakMemory, anonymous_bytes
from ernie_rt.host import PluginHost
from ernie_rt.loading import load
from ernie_rt.weights.synthetic import Synthetic

ref, backend, dtype, folder = json.loads(sys.argv[1])
host = PluginHost()
host.backend(backend)
weights = None if folder else Synthetic()
base = anonymous_bytes()
with PeakMemory() as peak:
    options = dict(backend=backend, dtype=dtype, max_context=1024, max_batch_tokens=512, weights=weights, host=host)
    with load(folder or ref, **options) as model:
        model.generate_ids(list(range(5, 1000)), max_new_tokens=20, ignore_eos=True)
        print(json.dumps({"bill": model.memory().nbytes, "held": peak.look() - base}))
"""


def measured(*arguments: object) -> Mapping[str, Any]:
    """What a model takes of a process of its own, beyond what importing its backend does, and what its bill said."""
    ran = subprocess.run([sys.executable, "-c", MEASURED, json.dumps(arguments)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found: Mapping[str, Any] = json.loads(ran.stdout)
    return found


def check(found: Mapping[str, Any]) -> None:
    assert abs(found["held"] - found["bill"]) <= max(30 << 20, 0.03 * found["held"]), found


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("backend", ["onnx", "eager", pytest.param("reference", marks=pytest.mark.long)])
def test_a_bill_is_what_is_held(backend: str) -> None:
    if PluginHost().missing(backend) is not None:
        pytest.skip(f"{backend} is not installed")
    check(measured("demo", backend, "float32", "demo"))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("backend", "dtype"), [("onnx", "float32"), ("eager", "bfloat16"), ("eager", "float32"), ("reference", "float32")]
)
def test_a_bill_in_a_published_shape_is_what_is_held(backend: str, dtype: str) -> None:
    check(measured("0.3B", backend, dtype, ""))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("layout", ["raw", "tiled"])
def test_a_bill_of_weights_in_blocks_is_what_is_held(layout: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = read_config(DEMO)
    quantize_model(DEMO, config, tmp_path / "int4", Quantization(4, layout=layout))
    check(measured("demo", "onnx", "float32", str(tmp_path / "int4")))
