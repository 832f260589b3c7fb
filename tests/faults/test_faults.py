"""A share of what `python -m faults` does, and with the long tests all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.figures import FIGURE

ROOT = Path(__file__).parents[2]
PARTS = ("killing", "racing", "bits", "full", "failing", "power")


def run(place: Path, *options: str) -> dict[str, Any]:
    report = place / "report.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTHONOPTIMIZE": ""}
    command = [sys.executable, "-m", "faults", "--json", str(report), *options]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert report.exists(), ended.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
def test_a_share(tmp_path: Path) -> None:
    found = run(tmp_path, "--share", "50")
    assert list(found) == list(PARTS)
    assert {part: told["faults"] for part, told in found.items()} == {part: [] for part in PARTS}
    assert found["killing"]["kills"] >= 6 and found["racing"]["readings"] == found["racing"]["of them whole"] > 0
    assert found["bits"]["found"] == found["bits"]["flips"] == 20
    assert found["full"].get("refused before anything was written", 4) == 4
    assert found["failing"].get("points", 60) >= 60 and found["power"].get("states", 300) >= 300


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
@pytest.mark.parametrize("part", PARTS)
def test_all(part: str, tmp_path: Path, record_property: Any) -> None:
    told = run(tmp_path, "--part", part)[part]
    for name, value in told.items():
        if name not in ("faults", "seconds", "skipped"):
            record_property(FIGURE, (f"faults of {value} {name}, {part}", len(told["faults"]), 1))
    assert not told["faults"]
