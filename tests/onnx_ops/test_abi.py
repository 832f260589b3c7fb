"""The ABI that the library declares by hand, beside ONNX Runtime's header, where one is to be had.

No wheel has it. Debian's package libonnxruntime-dev does: unpack it, and name its folder in ONNXRUNTIME_HEADERS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OPS = HERE.parents[1] / "backends" / "ernie_rt_onnx" / "ops"
HEADERS = Path(os.environ.get("ONNXRUNTIME_HEADERS", "/usr/include/onnxruntime"))
COMPILER = shutil.which("g++") or shutil.which("clang++")


def compiles(source: str, tmp_path: Path) -> str:
    """What the compiler complains of; nothing when it compiles."""
    if COMPILER is None or not (HEADERS / "onnxruntime_c_api.h").exists():
        pytest.skip("no compiler, or no header of ONNX Runtime")
    path = tmp_path / "abi.cpp"
    path.write_text(source)
    command = [COMPILER, "-std=c++17", "-fsyntax-only", f"-I{HEADERS}", f"-I{OPS}", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stderr


def test_places_and_constants_are_those_of_the_header(tmp_path: Path) -> None:
    assert compiles((HERE / "abi.cpp").read_text(), tmp_path) == ""


def test_another_place_is_seen(tmp_path: Path) -> None:
    text = (HERE / "abi.cpp").read_text().replace("offsetof(ort::ours, name)", "offsetof(ort::ours, name) + 8")
    assert "static assertion failed" in compiles(text, tmp_path)
