"""Kinds of folders with weights: which one a folder is, and one that comes from outside."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import ernie_rt
from ernie_rt.errors import CheckpointError, OptionError
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.weights.cache import cached_weights, entries
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.opening import SOURCES, SourceKind, open_weights
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import CheckpointSource, StoredSource
from support.drawn import MOE, write_drawn
from support.npz import FILE, NPZ
from support.two_bits import InTwoBits, TwoBits

IDS = [5, 9, 2, 200, 17, 63, 41]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("opening") / "model", MOE)


@pytest.fixture(scope="module")
def archive(checkpoint: Path) -> Path:
    """The same weights in a folder of another kind: norms in float64, everything else in float32."""
    folder, arrays = checkpoint.with_name("archive"), {}
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)
    config = read_config(folder)
    source = open_weights(checkpoint, config)
    for weight in build_graph(config).weights:
        if weight.storage.stored:
            wide = weight.name.endswith("norm")
            arrays[weight.name] = np.empty(weight.type.shape(), np.float64 if wide else np.float32)
            source.fill(weight, "data", arrays[weight.name])
    source.close()
    np.savez(folder / FILE, **arrays, **{"note.1": np.zeros(1)})  # type: ignore[arg-type]
    return folder


def logits(folder: Path, **options: Any) -> np.ndarray[Any, Any]:
    with ernie_rt.load(folder, backend="reference", dtype="float32", max_context=64, **options) as model:
        return model.logits(IDS)


def test_a_source_says_how_it_stores_what(checkpoint: Path, tmp_path: Path) -> None:
    config = read_config(checkpoint)
    quantize_model(checkpoint, config, tmp_path / "q", Quantization(4))
    for folder, kind in ((checkpoint, CheckpointSource), (tmp_path / "q", QuantizedSource)):
        source = open_weights(folder, config)
        assert isinstance(source, kind) and isinstance(source, StoredSource)
        graph = build_graph(config, storages=source.storages)
        assert {w.name for w in graph.weights if w.storage.stored} == source.storages.keys()
        assert not source.unused and source.fingerprint() == source.fingerprint()
        source.close()
    stored = open_weights(checkpoint, config).storages
    assert stored["layers.1.mlp.gate"] == Plain("float32") and stored["layers.1.mlp.norm"] == Plain("bfloat16")


def test_the_headers_are_what_a_model_says_of_its_weights(checkpoint: Path) -> None:
    """Not what config.json says: it says bfloat16, of the router too."""
    config = read_config(checkpoint)
    header = sum(array.nbytes for array in load_file(checkpoint / "model.safetensors").values())
    source = open_weights(checkpoint, config)
    graph = build_graph(config, storages=source.storages)
    assert sum(w.nbytes() for w in graph.weights if w.storage.stored) == header


def test_another_kind_of_folder(archive: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        ernie_rt.load(archive, backend="reference")
    sources = (NPZ, *SOURCES)
    found = logits(archive, sources=sources)
    np.testing.assert_array_equal(found, logits(checkpoint, sources=sources))
    np.testing.assert_array_equal(found, logits(ernie_rt.locate(archive, sources)))  # type: ignore[arg-type]
    with ernie_rt.load(archive, backend="eager", dtype="float32", max_context=64, sources=sources) as model:
        assert model.unused == (("note.1", "a note"),)
        stored = {weight.name: weight.storage for weight in model.graph.weights}
        assert stored["layers.0.mlp.norm"] == Plain("float64")
        assert any("converted from float64 to float32" in note for note in model.memory().notes)

    # It is quantised as well, to the same bytes as the checkpoint.
    config = read_config(archive)
    made = [
        quantize_model(folder, config, tmp_path / folder.name, Quantization(8), sources=sources).storages
        for folder in (archive, checkpoint)
    ]
    assert {n: s for n, s in made[0].items() if s.packed} == {n: s for n, s in made[1].items() if s.packed}
    np.testing.assert_array_equal(logits(tmp_path / "archive"), logits(tmp_path / "model"))
    with pytest.raises(OptionError, match="quantised already"):
        quantize_model(tmp_path / "archive", config, tmp_path / "again", Quantization(8), sources=sources)


def test_another_kind_of_folder_is_kept_quantised(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, config, how = shutil.copytree(archive, tmp_path / "own"), read_config(archive), Quantization(4)
    told: list[int] = []

    def cached(weights: Quantization = how) -> QuantizedSource:
        return cached_weights(
            folder, config, weights, sources=(NPZ, *SOURCES), announce=lambda nbytes, seconds: told.append(nbytes)
        )

    for _ in range(2):
        with closing(cached()) as source:
            np.testing.assert_array_equal(logits(folder, weights=source), logits(entries()[0].path))
    assert len(told) == len(entries()) == 1
    with closing(cached(replace(how, layout="tiled"))):
        assert len(told) == len(entries()) == 2

    arrays = dict(np.load(folder / FILE))
    arrays["layers.0.mlp.norm"][-1] += 1
    take_along = "ernie_rt.weights.folder._take_along"
    monkeypatch.setattr(take_along, lambda *_: np.savez(folder / FILE, **arrays))
    with pytest.raises(CheckpointError, match="it was changed while it was read"):
        cached(Quantization(8))


def test_what_opens_a_folder_is_told_to_reread(checkpoint: Path) -> None:
    told: list[bool] = []

    def opening(folder: Path, config: ModelConfig, *, reread: bool) -> StoredSource:
        told.append(reread)
        return SOURCES[-1].open(folder, config, reread=reread)

    located = ernie_rt.locate(checkpoint, (SourceKind("told", Path.is_dir, opening),))
    for reread in (False, True):
        with closing(located.weights(reread=reread)):
            assert told.pop() == reread
    with closing(located.weights()):
        assert told == [False]


@pytest.mark.parametrize("quantized", [False, True])
def test_whether_a_source_is_still_what_it_was(checkpoint: Path, tmp_path: Path, quantized: bool) -> None:
    config, folder = read_config(checkpoint), tmp_path / "model"
    if quantized:
        quantize_model(checkpoint, config, folder, Quantization(4))
    else:
        shutil.copytree(checkpoint, folder)
    path = max(folder.glob("*.safetensors"))
    data = path.read_bytes()
    with closing(open_weights(folder, config)) as source:
        fingerprint = source.fingerprint()
        path.touch()
        assert source.is_still(fingerprint)
        with path.open("r+b") as file:
            file.seek(-1, 2)
            file.write(bytes([data[-1] ^ 1]))
        assert not source.is_still(fingerprint)


def test_a_checkpoint_that_is_reread_believes_no_stamp(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_config(checkpoint)
    with closing(open_weights(checkpoint, config)) as source:
        right = source.fingerprint()
    monkeypatch.setattr("ernie_rt.weights.stamps.Stamps.recall", lambda *_: "0" * 64)
    found = []
    for given in ({}, {"reread": False}, {"reread": True}):
        with closing(open_weights(checkpoint, config, **given)) as source:
            found.append(source.fingerprint() == right)
    assert found == [False, False, True]


def test_a_folder_of_no_kind(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="expected an archive of NumPy's"):
        open_weights(checkpoint, read_config(checkpoint), (NPZ,))


def test_a_quantised_folder_with_storages_of_ones_own(checkpoint: Path, tmp_path: Path) -> None:
    config, known = read_config(checkpoint), {"plain": Plain, TwoBits.kind: TwoBits}
    manifest = quantize_model(checkpoint, config, tmp_path / "q", InTwoBits(4))
    kind = SourceKind(
        "two bits",
        lambda folder: (folder / MANIFEST).exists(),
        lambda folder, config, *, reread: QuantizedSource(
            folder, config, read_manifest(folder / MANIFEST, known), reread=reread
        ),
    )
    direct = logits(tmp_path / "q", weights=QuantizedSource(tmp_path / "q", config, manifest))
    np.testing.assert_array_equal(logits(tmp_path / "q", sources=(kind, *SOURCES)), direct)
