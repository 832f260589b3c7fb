"""Exported folders: what is in them, that stock ONNX Runtime computes what it should, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import onnx

import ernie_rt
from ernie_rt.errors import BackendError, OptionError, WriteError
from ernie_rt.export import ExportOptions, export, verify
from ernie_rt.location import locate
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt_onnx import emit
from ernie_rt_onnx.library import kernels
from ernie_rt_onnx.portable import CARD
from support.checkpoints import SPECS, write_checkpoint
from support.exported import sessions

WITHIN = 2e-5
NEW = 48
IDS = [7, 200, 31, 4, 99, 180, 12, 63, 5, 250, 141, 77]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = write_checkpoint(SPECS[name], root / name, SPECS[name].seed)
        return made[name]

    return make


def reference(folder: Path, ids: list[int]) -> np.ndarray:
    with ernie_rt.load(folder, backend="reference", dtype="float64") as model:
        return model.logits(ids)[-1]


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.sqrt(np.mean(expected**2)))


@pytest.mark.parametrize("name", ["dense-bias", "moe"])
def test_the_same_tokens_as_transformers(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """In stock ONNX Runtime by hand, and in the backend; onnxruntime-genai has a test of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    exported = export(checkpoint(name), tmp_path / "out", options=ExportOptions(verify=True))
    assert exported.figures["logits"] < WITHIN and exported.figures["layers.2.mlp.residual"] < WITHIN
    model = AutoModelForCausalLM.from_pretrained(checkpoint(name), dtype=torch.float32)
    with torch.no_grad():
        whole = model.generate(torch.tensor([IDS]), max_new_tokens=NEW, do_sample=False, eos_token_id=None)
    expected = whole[0, len(IDS) :].tolist()
    exact = reference(checkpoint(name), IDS)
    for session in sessions(tmp_path / "out"):
        assert off(session.logits(IDS), exact) < WITHIN
        assert session.greedy(IDS, NEW) == expected
    with ernie_rt.load(tmp_path / "out", backend="onnx", dtype="float32") as loaded:
        assert loaded.generate_ids(IDS, max_new_tokens=NEW, ignore_eos=True) == expected


def test_the_recipe_of_the_documentation(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    export(checkpoint("moe"), tmp_path / "out")
    page = Path(__file__).parents[2] / "docs" / "onnx.md"
    recipe, faster, _ = (
        block for block in re.findall("```python\n(.*?)```", page.read_text(), re.DOTALL) if "session" in block
    )
    opened = 'session = ort.InferenceSession("21B-onnx/model.onnx")\n'
    assert opened in recipe
    recipes = [recipe] if kernels() is None else [recipe, recipe.replace(opened, faster)]
    with ernie_rt.load(tmp_path / "out", backend="reference", dtype="float64") as model:
        prompts = [[1, 23, 45], [1, 7, 200, 31, 4]]
        expected = model.generate_batch(prompts, max_new_tokens=8, ignore_eos=True)
    for each in recipes:
        said: dict[str, Any] = {}
        exec(each.replace("21B-onnx", str(tmp_path / "out")), said)
        assert np.array(said["answers"]).T.tolist() == expected


def test_a_batch_of_prompts_of_different_lengths(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Padding follows the shorter one, in the prompt and in what is read of it later."""
    export(checkpoint("moe"), tmp_path / "out")
    ids = np.array([IDS, [*IDS[:5], *[0] * 7]])
    mask = np.array([[1] * 12, [1] * 5 + [0] * 7])
    for session in sessions(tmp_path / "out"):
        both = session(ids, mask, {})
        for row, alone in zip(both, (session.logits(IDS), session.logits(IDS[:5])), strict=True):
            assert off(row, alone) < 1e-5


@pytest.mark.parametrize("name", ["dense-tied", "moe"])
def test_int4_without_rounded_activations(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """The file asks for rounded ones; the rest of it is exact."""
    export(checkpoint(name), tmp_path / "out", options=ExportOptions(Quantization(4), verify=True))
    model = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False)
    levels = [a for node in model.graph.node for a in node.attribute if a.name == "accuracy_level"]
    assert levels and {a.i for a in levels} == {4}
    for attribute in levels:
        attribute.i = 0
    expected = reference(tmp_path / "out", IDS)
    for session in sessions(tmp_path / "out", model):
        assert off(session.logits(IDS), expected) < WITHIN
    for session in sessions(tmp_path / "out"):
        assert 1e-4 < off(session.logits(IDS), expected) < 0.5


@pytest.mark.parametrize("weights, dtype", [(None, "float32"), (8, "float16"), (4, "bfloat16")])
def test_the_folder(weights: Any, dtype: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    how = None if weights is None else Quantization(weights)
    exported = export(checkpoint("moe"), out, options=ExportOptions(how, dtype))
    assert exported.files == {path.name: path.stat().st_size for path in out.iterdir()}
    onnx.checker.check_model(str(out / "model.onnx"))
    model = onnx.load(str(out / "model.onnx"), load_external_data=False)
    assert {function.name for function in model.functions} == {"MoE" if weights is None else "QMoE"}
    manifest = read_manifest(out / MANIFEST)
    card = json.loads(next(entry.value for entry in model.metadata_props if entry.key == CARD))
    assert card["files"].keys() == exported.files.keys() - {"model.onnx", "README.md"}
    assert card["files"].items() >= {name: shard.sha256 for name, shard in manifest.shards.items()}.items()
    assert card["errors"] == manifest.errors
    # One copy on disk: constants are places in the files of weights, all of which the graph reads.
    places: dict[str, set[tuple[int, int]]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            said = {entry.key: entry.value for entry in tensor.external_data}
            start = int(said["offset"])
            assert start % 4096 == 0 and start + int(said["length"]) <= exported.files[said["location"]]
            places.setdefault(said["location"], set()).add((start, int(said["length"])))
    assert places.keys() == {*manifest.shards, "model.onnx.data"}
    assert exported.files["model.onnx"] < 60_000
    assert "without a tokenizer" in exported.notes[0]
    recipe = re.search("```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert recipe is not None and recipe[1].index("ORT_DISABLE_TELEMETRY") < recipe[1].index("import onnxruntime")
    if dtype != "bfloat16":
        subprocess.run([sys.executable, "-c", recipe[1]], cwd=out, check=True)
    if dtype == "float16":
        for session in sessions(out):
            assert off(session.logits(IDS), reference(out, IDS)) < 0.1


@pytest.mark.parametrize("layout", ["raw", "tiled"])
def test_a_quantised_model(layout: Any, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = checkpoint("moe")
    quantize_model(source, locate(source).config, tmp_path / "int8", Quantization(8, layout=layout))
    export(tmp_path / "int8", tmp_path / "out")
    assert off(reference(tmp_path / "out", IDS), reference(tmp_path / "int8", IDS)) == 0
    with pytest.raises(OptionError, match="quantised already"):
        export(tmp_path / "int8", tmp_path / "other", options=ExportOptions(Quantization(4)))


def test_verification_finds_what_is_wrong(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(e: Any, x: Any, *, out: str) -> None:
        up, gate = (e("Gather", e.name(x), e.constant(i, np.int64), axis=-1) for i in (0, 1))
        e("Mul", e("Mul", gate, e("Sigmoid", gate)), up, out=out)

    monkeypatch.setattr("ernie_rt_onnx.model.EMIT", {**emit.EMIT, "swiglu": swapped})
    with pytest.raises(BackendError, match=r"layers\.0\.mlp\.residual: the exported model does not compute"):
        export(checkpoint("moe"), tmp_path / "out", options=ExportOptions(verify=True))
    assert not (tmp_path / "out").exists()


def test_what_was_interrupted_goes_on(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    options = ExportOptions(Quantization(4))
    export(checkpoint("moe"), tmp_path / "whole", options=options)
    with monkeypatch.context() as patch:
        patch.setattr("ernie_rt_onnx.portable._place_constants", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(checkpoint("moe"), tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").is_dir()
    export(checkpoint("moe"), tmp_path / "out", options=options)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "model-00001-of-00005.safetensors"])
def test_a_disk_that_fills_up(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a file: said by its name, and the same command goes on when there is room."""
    sync = os.fsync

    def full(descriptor: int) -> None:
        if re.fullmatch(rf"\.{name}\.[0-9a-f]+\.tmp", Path(f"/proc/self/fd/{descriptor}").readlink().name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=rf"{name}: cannot be written; found No space left on device"):
            export(checkpoint("moe"), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial" / name).exists()
    export(checkpoint("moe"), tmp_path / "out")
    verify(tmp_path / "out")


def test_what_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("dense-tied")
    (tmp_path / "there").mkdir()
    with pytest.raises(WriteError, match="there: cannot be written; found File exists"):
        export(folder, tmp_path / "there")
    with pytest.raises(OptionError, match="no ONNX graph computes in float64"):
        export(folder, tmp_path / "out", options=ExportOptions(dtype="float64"))
    with pytest.raises(OptionError, match="backend 'eager' has no format to export to; expected one of onnx"):
        export(folder, tmp_path / "out", "eager")
    with pytest.raises(OptionError, match="ONNX Runtime reads the layout raw alone"):
        export(folder, tmp_path / "out", options=ExportOptions(Quantization(4, layout="tiled")))
    monkeypatch.setattr("ernie_rt.writing.free_bytes", lambda path: 1000)
    with pytest.raises(WriteError, match="the disk has too little room"):
        export(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
