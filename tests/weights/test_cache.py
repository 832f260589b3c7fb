"""Quantised models in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie_rt.errors import OptionError, WriteError
from ernie_rt.location import locate
from ernie_rt.weights.cache import cache_folder, quantized_folder
from ernie_rt.weights.quantize import Quantization
from support.drawn import MOE, write_drawn


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("cache") / "model", MOE)


def twin(folder: Path, bits: int = 4, told: list[tuple[int, float]] | None = None) -> Path:
    def announce(nbytes: int, seconds: float) -> None:
        assert told is not None
        told.append((nbytes, seconds))

    how = Quantization(bits)  # type: ignore[arg-type]
    return quantized_folder(folder, locate(folder).config, how, announce=None if told is None else announce)


def test_once_for_each_model_and_kind(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    told: list[tuple[int, float]] = []
    first = twin(checkpoint, 4, told)
    assert first.parent == cache_folder() == tmp_path / "caches" / "ernie-rt" / "quantized"
    ((nbytes, seconds),) = told
    assert nbytes == sum(path.stat().st_size for path in first.glob("*.safetensors")) and 0 < seconds < 60
    assert twin(checkpoint, 4, told) == first and len(told) == 1
    assert twin(checkpoint, 8, told) != first and len(told) == 2
    assert twin(first) == first  # what is quantised so already is its own twin
    with pytest.raises(OptionError, match="the model is quantised otherwise"):
        twin(first, 8)
    other = write_drawn(tmp_path / "other", MOE | {"rms_norm_eps": 1e-6, "hidden_size": 96})
    assert twin(other) != first


def test_a_cache_that_cannot_be_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WriteError, match="the cache cannot be written"):
        twin(checkpoint)
