"""What tests of several folders need."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small checkpoint with a tokenizer. Tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("demo") / "model"
    script = Path(__file__).parents[1] / "tools" / "demo_checkpoint.py"
    runpy.run_path(str(script))["write_demo_checkpoint"](folder)
    return folder
