"""The wheels that tools/wheels.py builds of the commit: what they are for, and that they run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")
LIBRARY = "ernie_rt_onnx/_ops.so"
OF_GLIBC = {
    b"libc.so.6",
    b"libm.so.6",
    b"libpthread.so.0",
    b"libdl.so.2",
    b"ld-linux-x86-64.so.2",
    b"ld-linux-aarch64.so.1",
}
RUN = """
from pathlib import Path

import ernie_rt
from ernie_rt_onnx.library import kernels, library_path

assert library_path() == Path("ernie_rt_onnx/_ops.so").absolute()
assert kernels()
with ernie_rt.load("demo", backend="onnx") as model:
    print(model.chat([{"role": "user", "content": "How many grams are in 5 kilograms?"}]).text)
"""
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (find_spec("ziglang") and find_spec("wheel")), reason="no ziglang, or no wheel"),
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no checkout of git's"),
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels, by the platform that each is for, made by build tools that are installed: nothing is fetched."""
    out = tmp_path_factory.mktemp("wheels")
    offline = os.environ | {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    subprocess.run([sys.executable, ROOT / "tools" / "wheels.py", "--out", out], env=offline, check=True)
    return {path.stem.partition("-py3-none-")[2]: path for path in out.iterdir()}


def test_there_is_one_for_each_platform(wheels: dict[str, Path]) -> None:
    assert wheels.keys() == {"any", *PLATFORMS}
    files = {name: set(zipfile.ZipFile(path).namelist()) for name, path in wheels.items()}
    assert not [name for name in files["any"] if "_ops" in name]
    for name in PLATFORMS:
        assert files[name] - files["any"] == {LIBRARY}


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_library_needs_an_old_glibc_and_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    library = zipfile.ZipFile(wheels[name]).read(LIBRARY)
    words = set(library.split(b"\0"))
    assert {word for word in words if re.fullmatch(rb"(lib|ld-)[\w-]+\.so[.\d]*", word)} <= OF_GLIBC
    versions = [tuple(map(int, found)) for word in words for found in re.findall(rb"^GLIBC_(\d+)\.(\d+)", word)]
    assert (2, 0) < max(versions) <= (2, 28)
    assert not [word for word in words if word.startswith((b"GLIBCXX_", b"CXXABI_", b"_Zn", b"_Zd"))]


@pytest.mark.skipif(platform.system() != "Linux", reason="its wheels are Linux's")
def test_it_runs(wheels: dict[str, Path], tmp_path: Path) -> None:
    zipfile.ZipFile(wheels[f"manylinux_2_28_{platform.machine()}"]).extractall(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "5 kilograms = 5000 grams\n", done.stderr
