"""ONNX Runtime keeps no id of the device and no counts of use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

RUN = """
import ernie_rt
with ernie_rt.load("demo", backend="onnx") as model:
    model.generate("A white cat", max_new_tokens=1)
"""


def test_nothing_is_kept_to_be_sent(tmp_path: Path) -> None:
    places = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME")}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", RUN], env=kept | places, check=True, timeout=120)
    assert not list(tmp_path.rglob("*onnxruntime*"))
