"""The runner itself: whatever an input does to its process is reported by its seed, and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ernie_rt.errors import ConfigError, ErnieRtError
from fuzz.running import Run, reached
from fuzz.sites import ROOT, checks
from fuzz.target import Attempt, Target, known, named

WRONG = {3: "crash", 5: "unnamed", 7: "memory", 11: "hang", 13: "slow", 17: "endless", 19: "crash"}


def feed(seed: int) -> None:
    match seed:
        case 3:
            os.abort()
        case 5:
            raise KeyError("nobody caught this")
        case 7:
            bytearray(1 << 34)
        case 11:
            time.sleep(60)
        case 13:
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
        case 17:
            raise ErnieRtError("x", hint="y" * 10_000)
        case 19:
            os._exit(7)
    if seed % 2:
        raise ConfigError("odd")


def start(scratch: Path) -> Attempt:
    assert not list(scratch.iterdir())

    def attempt(rng: Random) -> None:
        feed(next(seed for seed in range(40) if TARGET.random(seed).getstate() == rng.getstate()))

    return attempt


def broken(scratch: Path) -> Attempt:
    raise OSError("no room")


TARGET = Target("wrong", (__name__,), start, share=40)
BROKEN = Target("broken", (__name__,), broken, share=40)


def report() -> None:
    """What a process of its own is asked for: pytest's has threads, which do not go into a fork."""
    import fuzz.child

    fuzz.child.HANGS, fuzz.child.SLOW = 2.0, 0.1  # type: ignore[misc]
    outcomes = Run([TARGET, BROKEN], jobs=2).until(inputs=80)
    print(json.dumps([outcome.to_json(reached(outcomes)) for outcome in outcomes]))


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    program = "from fuzz.test_running import report; report()"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def test_each_fault_is_told_by_its_seed(outcomes: list[dict[str, Any]]) -> None:
    wrong, _ = outcomes
    assert {fault["seed"]: fault["kind"] for fault in wrong["faults"]} == WRONG
    said = {fault["seed"]: fault["what"] for fault in wrong["faults"]}
    assert "SIGABRT" in said[3] and "feed" in said[3]
    assert said[5].startswith("KeyError at tests/fuzz/test_running.py:")
    assert "feed" in said[11] and "exit code 7" in said[19]


def test_the_others_go_on_and_are_counted(outcomes: list[dict[str, Any]]) -> None:
    wrong, _ = outcomes
    assert wrong["inputs"] == 40 and not wrong["abandoned"]
    assert wrong["accepted"] == 20
    odd, endless = (str(site) for site, text in sorted(checks(__name__).items(), reverse=True))
    assert wrong["reached"] == {odd: 20 - len(WRONG) + 1, endless: 1}  # the slow one is refused as well
    assert wrong["rarely"].keys() == wrong["reached"].keys()


def test_a_target_that_does_not_start_is_a_fault(outcomes: list[dict[str, Any]]) -> None:
    _, broken = outcomes
    assert broken["abandoned"] and not broken["inputs"]
    assert {fault["kind"] for fault in broken["faults"]} == {"start"}
    assert "OSError: no room" in broken["faults"][0]["what"]


def test_a_check_is_where_somebody_says_what_is_wrong() -> None:
    """Functions that are told what is wrong raise for others, who are counted apart."""
    found = checks("ernie_rt.modeling.config").values()
    assert any(text.startswith("demand( moe.moe_k <= moe.moe_num_experts") for text in found)
    assert not any(text.startswith("raise ConfigError(what") for text in found)


@pytest.mark.parametrize("name", known())
def test_a_target_has_the_name_of_its_file_and_checks_to_reach(name: str) -> None:
    target = named(name)
    sites = {text for module in target.modules for text in checks(module).values()}
    assert sites and all(any(words in text for text in sites) for words in target.excused)
