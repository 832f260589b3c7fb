"""The kernels of a processor beside the plain ones, in C++: this machine's, and ARM's, which elsewhere need two tools.

apt install qemu-user-static && pip install ziglang    # or g++-aarch64-linux-gnu in place of the latter
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.operators import ALL, names

HERE = Path(__file__).parent
OPS = HERE.parents[1] / "backends" / "ernie_rt_onnx" / "ops"
COMPILER = shutil.which("g++") or shutil.which("clang++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
NEEDS = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma", "f16c"},
    "avxvnni": {"avx_vnni", "avx2", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c"},
    "neon": {"asimddp"},
    "plain": set(),
}
"""What Linux calls the instructions of kernels."""


def cross_compiler() -> list[str]:
    if found := shutil.which("aarch64-linux-gnu-g++"):
        return [found, "-static"]
    return [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl"] if find_spec("ziglang") else []


def compiled(compiler: list[str], program: Path) -> Path:
    # Where a product and a sum are rounded in one go, which not all do, a number between two codes becomes the other.
    flags = ["-std=c++17", "-O3", "-Wno-psabi", "-ffp-contract=off", f"-I{OPS}"]
    sources = [*OPS.glob("kernels_*.cpp"), OPS / "processor.cpp", HERE / "kernels.cpp"]
    subprocess.run([*compiler, *flags, *map(str, sources), "-o", str(program)], check=True)
    return program


def ran(*command: str | Path) -> list[str]:
    """The names of the kernels that were compared."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.long
@pytest.mark.skipif(COMPILER is None or not names(), reason="no compiler, or no library")
def test_of_this_machine(tmp_path: Path) -> None:
    assert COMPILER is not None
    assert [*ran(compiled([COMPILER], tmp_path / "kernels")), "plain"] == names()


@pytest.mark.long
@pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64")
@pytest.mark.skipif(not cross_compiler(), reason="neither aarch64-linux-gnu-g++ nor ziglang")
def test_of_arm(tmp_path: Path) -> None:
    assert EMULATOR is not None
    program = compiled(cross_compiler(), tmp_path / "kernels")
    assert ran(EMULATOR, program) == ["neon"]
    assert ran(EMULATOR, "-cpu", "cortex-a53", program) == []  # which has no dot products


@pytest.mark.skipif(platform.system() != "Linux" or not names(), reason="not Linux, or no library")
def test_the_processor_is_asked_right() -> None:
    has = set(Path("/proc/cpuinfo").read_text().split())
    assert names() == [name for name in ALL if NEEDS[name] <= has]
