"""The onnx backend with the library of operators: weights in tiles, in the conformance suite and in a session."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
import onnxruntime as ort

import ernie_rt
from ernie_rt.build import build
from ernie_rt.conformance import Suite
from ernie_rt.contract import BlockQuantized, Limits, Target, memory
from ernie_rt.errors import CapacityError, LoweringError
from ernie_rt.graph.legalize import legalize
from ernie_rt.host import PluginHost
from ernie_rt.location import locate
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.source import storages_of
from ernie_rt.weights.synthetic import Synthetic
from ernie_rt_onnx import executable, library
from ernie_rt_onnx.backend import OnnxBackend
from support.commands import command
from support.operators import names

TILED = BlockQuantized(4, 32, "tiled")
FLOAT32, FLOAT16 = (Target(("cpu",), dtype) for dtype in ("float32", "float16"))  # type: ignore[arg-type]
QUESTION = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in int4, in tiles."""
    out, located = tmp_path_factory.mktemp("tiled") / "demo", locate("demo")
    assert located.folder is not None
    quantize_model(located.folder, located.config, out, Quantization(4, layout="tiled", clip_search=False))
    return out


@pytest.fixture(scope="module")
def folders(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model with its weights stored in each way."""
    raw, located = tmp_path_factory.mktemp("raw") / "demo", locate("demo")
    assert located.folder is not None
    quantize_model(located.folder, located.config, raw, Quantization(4, clip_search=False))
    return {"tiled": demo, "raw": raw, "plain": located.folder}


@pytest.fixture
def built() -> None:
    if library.kernels() is None:
        pytest.skip("this installation has no library of operators")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("storage, levels", [("int4/tiled", "12"), ("int8/64/tiled", "12"), ("int4/128/tiled", "1")])
def test_it_computes_what_it_should(storage: str, levels: str) -> None:
    report = Suite("onnx", dtype="float32", storage=storage).run([f"L{level}" for level in levels])
    assert report.ok, report.table()
    assert all(report.subject["accepts"].values())


@pytest.mark.usefixtures("built")
def test_nothing_changes_an_answer() -> None:
    """Of models that have weights of all kinds; test_so_do_all_kernels has all models."""
    checks = Suite("onnx", dtype="float32", storage="int4/tiled").checks(["L3"])
    found = [check.run() for check in checks if check.name.split("/")[1] in ("moe", "large-moe")]
    assert found and {result.status for result in found} <= {"passed", "skipped"}, found


@pytest.mark.long
@pytest.mark.parametrize("storage", ["int4/tiled", "int8/tiled"])
@pytest.mark.parametrize("kernels", names())
def test_so_do_all_kernels(kernels: str, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.KERNELS, kernels)
    report = Suite("onnx", dtype="float32", storage=storage).run()
    assert report.ok, report.table()


STOCK = {
    "QMoE", "MoE", "MatMulNBits", "GatherBlockQuantized", "Gemm", "GroupQueryAttention", "TopK", "Softmax",
    "RMSNormalization", "Add",
}  # fmt: skip
KINDS = {
    "tiled": {"TiledLinear", "TiledRows", "TiledFeedForward", "RopeAttention"},
    "raw": {"QMoE", "RopeAttention", "MatMulNBits", "GatherBlockQuantized", "RMSNormalization", "Add"},
    "plain": {"MoE", "RopeAttention", "Gemm", "RMSNormalization", "Add"},
}
"""What runs of weights of each kind, by name; experts of which no stock operator runs are not routed by one either."""


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("kind", KINDS)
def test_its_operators_run(
    kind: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Profiled(ort.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.enable_profiling = True
            self.profile_file_prefix = str(tmp_path / "profile")

    monkeypatch.setattr(executable.ort, "SessionOptions", Profiled)
    with ernie_rt.load(folders[kind], backend="onnx", dtype="float32") as model:
        assert model.chat(QUESTION, max_new_tokens=20).text == "5 kilograms = 5000 grams"  # type: ignore[arg-type]
    (profile,) = tmp_path.glob("profile*.json")
    events = json.loads(profile.read_text())
    ran = {event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]}
    assert KINDS[kind] <= ran and not (STOCK - KINDS[kind]) & ran


@pytest.mark.usefixtures("built")
def test_layouts_answer_alike(folders: dict[str, Path]) -> None:
    texts = []
    for kind in ("tiled", "raw"):
        with ernie_rt.load(folders[kind], backend="onnx", dtype="float32") as model:
            texts.append(model.chat(QUESTION).text)  # type: ignore[arg-type]
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("built")
def test_tiles_are_taken_in_float32_alone() -> None:
    assert OnnxBackend().accepts(TILED, FLOAT32)
    assert not OnnxBackend().accepts(TILED, FLOAT16)
    assert OnnxBackend().accepts(TILED.laid_out("raw"), FLOAT16)


@pytest.mark.parametrize("layout", ["raw", "tiled"])
def test_experts_that_are_stored_in_two_ways_are_refused_with_the_reason(layout: str) -> None:
    """No folder of ours has such; a source of somebody's may."""
    graph = build_graph(locate("demo").config, "float32")
    mixed = graph.with_weights(
        lambda w: replace(w, storage=TILED.laid_out(layout)) if w.name.endswith("experts.gate_up") else w
    )
    with pytest.raises(LoweringError, match="weights in blocks are read by linears, rows and experts alone"):
        legalize(mixed, lambda node: OnnxBackend().claims(node, FLOAT32))


def test_without_the_library(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.KERNELS, "none")
    assert library.kernels() is None
    assert not OnnxBackend().accepts(TILED, FLOAT32)
    how = Quantization(4).taken(lambda storage: OnnxBackend().accepts(storage, FLOAT32))
    assert how.layout == "raw"
    with ernie_rt.load(demo, backend="onnx", dtype="float32") as model:
        assert any("dequantised from int4/32 tiled" in note for note in model.memory().notes)
        assert model.chat(QUESTION, max_new_tokens=20).text == "5 kilograms = 5000 grams"  # type: ignore[arg-type]


@pytest.mark.usefixtures("built")
def test_what_is_mapped_counts_against_no_limit(demo: Path) -> None:
    """Nor is a model refused whose weights in files are larger than memory."""
    located, source = locate(demo), locate(demo).weights()
    built = build(located.config, OnnxBackend(), FLOAT32, storages_of(source))
    tiles = sum(w.nbytes() for w in built.graph.weights if w.storage == TILED or w.name == "embed.weight")
    bill = built.bill(Limits(64))
    assert bill.mapped_bytes == tiles > bill.kept_bytes
    assert bill.weight_bytes - tiles == bill.held_weight_bytes
    executable = built.compile(source, Limits(64, memory_bytes=bill.kept_bytes))
    assert replace(executable.memory(), notes=bill.notes) == bill
    with pytest.raises(CapacityError, match="the memory limit"):
        built.compile(source, Limits(64, memory_bytes=bill.kept_bytes - 1))
    source.close()
    assert built.compile(Synthetic(), Limits(64)).memory().mapped_bytes == 0  # which has no files
    with pytest.raises(CapacityError, match="the memory limit"):
        built.compile(Synthetic(), Limits(64, memory_bytes=bill.kept_bytes))


@pytest.mark.usefixtures("built")
def test_it_says_what_came_from_disk(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([library.Reads(100, 50), library.Reads(100, 0)])
    with ernie_rt.load(demo, backend="onnx", dtype="float32") as model:
        assert model.memory().experts_from_disk is None
        monkeypatch.setattr(executable, "take_reads", lambda: next(counted))
        for share in (0.5, 0.25):
            model.generate_ids([5, 6, 7], max_new_tokens=1)
            assert model.memory().experts_from_disk == share


@pytest.mark.usefixtures("built")
def test_of_files_that_it_may_not_write_it_says_nothing(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would say that all of them is in memory."""
    monkeypatch.setattr(executable.os, "access", lambda path, mode: False)
    monkeypatch.setattr(executable, "take_reads", lambda: library.Reads(100, 0))
    with ernie_rt.load(demo, backend="onnx", dtype="float32") as model:
        model.generate_ids([5, 6, 7], max_new_tokens=1)
        assert model.memory().experts_from_disk is None


@pytest.mark.usefixtures("built")
def test_a_model_larger_than_memory_runs(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 2048 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr("ernie_rt_onnx.planner.SESSION_BYTES", 0)
    ran = command(
        "run", demo, "How many grams are in 5 kilograms?", "--backend", "onnx", "--max-context", "128",
        "--max-batch-tokens", 32, "--json",
    )  # fmt: skip
    answer = json.loads(ran.out)
    assert (ran.code, answer["text"]) == (0, "5 kilograms = 5000 grams")
    assert answer["mapped_bytes"] > 2 << 20 > answer["device_bytes"]
    assert (answer["experts_from_disk"] is not None) == (sys.platform == "linux")
    said = r"\d\.\d MiB of weights are read where they lie in files, more than the 2\.0 MiB of memory that are free"
    assert re.search(said, ran.err)


def test_a_library_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "_ops.so"
    broken.write_bytes(b"\x7fELF and no more")
    monkeypatch.setattr(library, "library_path", lambda: broken)
    assert library.kernels() is None


def test_backends_says_whether_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = library.library_path() is not None
    assert ("kernels of ours" in PluginHost().info("onnx").summary) == there
    monkeypatch.setattr("ernie_rt_onnx.library_path", lambda: None)
    summary: Any = PluginHost().info("onnx").summary
    assert "no C++ compiler" in summary
