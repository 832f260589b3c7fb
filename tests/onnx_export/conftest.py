"""A model, exported once a module, and a copy of that for each test to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ernie_rt.export import ExportOptions, export
from ernie_rt.weights.quantize import Quantization
from support.drawn import MOE, write_drawn


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("verify") / "checkpoint", MOE)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    out = checkpoint.parent / "out"
    export(checkpoint, out, options=ExportOptions(Quantization(4)))
    return out


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "folder"))
