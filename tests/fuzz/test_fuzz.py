"""A share of each target's inputs, the same in each run; `make fuzz` has millions of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.sites import ROOT
from fuzz.target import known

INPUTS = "40000"
MOST = 0.5
"""The share of a target's checks that its few inputs here reach at least; the long mode is to reach all."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    report = tmp_path_factory.mktemp("fuzz") / "report.json"
    command = [sys.executable, "-m", "fuzz", "--inputs", INPUTS, "--json", str(report)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTHONOPTIMIZE": ""}
    subprocess.run(command, env=environment, timeout=900)
    return {outcome["target"]: outcome for outcome in json.loads(Path(report).read_text())}


@pytest.mark.parametrize("name", known())
def test_no_input_is_a_fault_and_most_checks_are_reached(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    outcome = outcomes[name]
    assert not outcome["faults"]
    assert outcome["accepted"] and outcome["refused"]
    never = {place: text for place, (count, text) in outcome["rarely"].items() if not count}
    assert len(never) <= (1 - MOST) * outcome["checks"], never
