"""The operators' own tests once more, with a library that watches every access and every undefined operation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OPS = ROOT / "backends" / "ernie_rt_onnx" / "ops"
COMPILER = shutil.which("g++")
RUN = """
import sys
from pathlib import Path

from ernie_rt_onnx import library

library.library_path = lambda: Path(sys.argv[1])

import pytest

sys.exit(pytest.main(["-q", "-s", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def runtime(name: str) -> str:
    """The compiler's library of this name. Python knows neither: both have to be there before anything else."""
    assert COMPILER is not None
    return subprocess.run(
        [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.long
@pytest.mark.skipif(COMPILER is None, reason="no g++")
def test_no_access_is_out_of_bounds(tmp_path: Path) -> None:
    assert COMPILER is not None
    library = tmp_path / "_ops.so"
    watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    flags = ["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-Wno-psabi", "-w", *watched]
    subprocess.run([COMPILER, *flags, *map(str, OPS.glob("*.cpp")), "-o", str(library)], check=True)
    environment = os.environ | {
        "LD_PRELOAD": " ".join(map(runtime, ("libasan.so", "libstdc++.so"))),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT / "tests", ROOT / "backends", ROOT)),
    }
    tests = [
        str(HERE / name) for name in ("test_operators.py", "test_experts.py", "test_attention.py", "test_residency.py")
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(library), *tests], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout
