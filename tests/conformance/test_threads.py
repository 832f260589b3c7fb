"""The suite judges alike however a backend sums: with one thread, with those that its user has, on other cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ernie_rt_template

SKELETON = Path(ernie_rt_template.__file__).parent / "skeleton"
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RUN = """
import sys
import ernie_rt_yourchip
from ernie_rt.conformance import Suite
from ernie_rt.host import PluginHost
report = Suite("yourchip", PluginHost(extra=[ernie_rt_yourchip])).run(sys.argv[1].split(","))
print(report.table())
sys.exit(not report.ok)
"""


def judge(levels: str, **settings: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in LIMITS}
    environment |= {"PYTHONPATH": str(SKELETON), **settings}
    done = subprocess.run(
        [sys.executable, "-c", RUN, levels], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_passes_with_the_threads_that_there_are_by_default() -> None:
    """On the level whose prompts are long enough for a router's tie to fall either way."""
    judge("L4")


@pytest.mark.long
@pytest.mark.parametrize("cores", ["", "Haswell", "Nehalem", "SkylakeX"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_template_passes(cores: str, threads: str) -> None:
    judge("L4,L5", OPENBLAS_NUM_THREADS=threads, **({"OPENBLAS_CORETYPE": cores} if cores else {}))
