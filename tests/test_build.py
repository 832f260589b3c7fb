"""What a backend is given, what that will take, and `auto` that goes on where it is too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ernie_rt
from ernie_rt.build import build
from ernie_rt.contract import Backend, Limits, Target
from ernie_rt.errors import CapacityError, OptionError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.host import PluginHost
from ernie_rt.location import locate
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small

HOST = PluginHost()
CONFIG = small(head_dim=16, hidden_size=32, intermediate_size=64, moe_intermediate_size=32, torch_dtype="bfloat16")
LIMITS = Limits(48, max_sequences=2)
CASES = [("onnx", "float32"), ("eager", "float32"), ("eager", "bfloat16"), ("reference", "float32")]


def target(dtype: Any) -> Target:
    return Target(("cpu",), dtype)


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@pytest.mark.parametrize("bits", [None, 4])
def test_the_bill_is_what_is_held(backend: str, dtype: str, bits: Any) -> None:
    implementation: Backend = HOST.backend(backend)
    plain = build_graph(CONFIG).weights
    storages = {w.name: Quantization(bits).storage(w) for w in plain if w.storage.stored} if bits else None
    built = build(CONFIG, implementation, target(dtype), storages)
    bill = built.bill(LIMITS)
    executable = built.compile(Synthetic(), LIMITS)
    report = executable.memory()
    assert (bill.weight_bytes, bill.cache_bytes) == (report.weight_bytes, report.cache_bytes) and bill.cache_bytes > 0
    executable.close()
    exactly = Limits(48, max_sequences=2, memory_bytes=bill.kept_bytes)
    built.compile(Synthetic(), exactly).close()
    with pytest.raises(CapacityError, match="memory limit"):
        built.compile(Synthetic(), Limits(48, max_sequences=2, memory_bytes=bill.kept_bytes - 1))


def test_notes_say_what_is_made_of_which_weights() -> None:
    storages = {"embed.weight": BlockQuantized(8, 32), "layers.0.mlp.down": Plain("float64")}
    given = build(CONFIG, HOST.backend("eager"), target("float32"), storages)
    sizes = {w.name: w.type.nbytes() for w in given.graph.weights if w.storage.stored}
    assert given.notes[0] == f"{sizes['embed.weight'] / 1024:.1f} KiB of weights dequantised from int8/32 to float32"
    assert {note.partition(" of ")[2] for note in given.notes} == {
        "weights dequantised from int8/32 to float32",
        "weights converted from bfloat16 to float32",
        "weights converted from float64 to float32",
    }
    assert {w.name for w in given.graph.weights if w.storage == Plain("float32")} >= {"embed.weight"}
    taken = build(CONFIG, HOST.backend("onnx"), target("float32"), storages)
    assert not any("dequantised" in note for note in taken.notes)
    assert next(w for w in taken.graph.weights if w.name == "embed.weight").storage == BlockQuantized(8, 32)
    assert build(CONFIG, HOST.backend("eager"), target("bfloat16")).notes == ()


def test_several_graphs() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 32)))
    y = b("linear", x, Weight("draft", TensorType("float32", (8, 32)), BlockQuantized(4, 32)))
    graphs = {"main": build_graph(CONFIG, "float32"), "draft": b.finish("draft", {"y": y})}
    built = build(graphs, HOST.backend("eager"), target("float32"), taps=["layers.1.mlp.route"])
    assert built.lowerings.keys() == {"main", "draft"}
    assert [name for name, _ in built.lowering.taps] == ["layers.1.mlp.route"]
    assert [name for name, _ in built.lowerings["draft"].taps] == ["y"]
    alone = build({"main": graphs["main"]}, HOST.backend("eager"), target("float32"))
    assert built.bill(LIMITS).weight_bytes == alone.bill(LIMITS).weight_bytes + 8 * 32 * 4
    assert any("int4/32" in note for note in built.notes)
    with pytest.raises(OptionError, match="to tap"):
        build(graphs, HOST.backend("eager"), target("float32"), taps=["draft"])
    renamed = built.with_taps([("here", built.lowering.graph.output("logits"))])
    assert [name for name, _ in renamed.lowering.taps] == ["here"] and renamed.graph is built.graph


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_auto_takes_the_backend_that_has_room(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx widens bfloat16 to float32, and eager does not."""
    monkeypatch.setattr("ernie_rt.choice.accelerators", lambda: ())
    located = locate("demo")
    folder = located.folder
    assert folder is not None
    stored = (Path(folder) / "model.safetensors").stat().st_size
    room: dict[str, Any] = {"memory_bytes": round(1.3 * stored), "max_context": 64, "device": device}
    with ernie_rt.load(located, **room) as model:
        assert (model.choice.backend, model.choice.dtype) == ("eager", "bfloat16")
        assert "; onnx on cpu in float32: " in model.choice.reason
        assert model.choice.reason.endswith("the model does not fit into the memory limit")
        assert model.memory().kept_bytes <= room["memory_bytes"]
    with ernie_rt.load(located, max_context=64, device=device) as model:
        assert model.choice.backend == "onnx" and "fit" not in model.choice.reason
    with pytest.raises(CapacityError, match="does not fit into the memory limit"):
        ernie_rt.load(located, backend="onnx", **room)
    with pytest.raises(CapacityError) as caught:
        ernie_rt.load(located, **room | {"memory_bytes": stored // 2})
    assert all(f"{name} on cpu in " in str(caught.value.found) for name in ("onnx", "eager", "reference"))
    assert "of weights and" in str(caught.value.found) and "at most" in str(caught.value.expected)
