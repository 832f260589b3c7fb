"""Folders written in a child process, by a Python that may have another transformers than the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[2]


def write_saved(where: Path, seeds: Iterable[int], python: str = sys.executable) -> None:
    """Write the folders of these seeds into `where`, with the transformers that `python` has."""
    done = subprocess.run(
        [python, "-m", "support.saved", str(where), *map(str, seeds)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
