"""`ernie-rt doctor`: what it prints, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.cli.doctor import here
from ernie_rt.contract import Executed, Finding
from ernie_rt.doctor import examination, folders
from ernie_rt.doctor.report import Backend, Fact, Notes, Report
from ernie_rt.doctor.trial import Trial, Tried
from support.broken_plugins import PLUGIN, Stranger, install, raising
from support.commands import command

SLOW = Finding("slow", "it is cold", "time", "warm --it", "Or wait")
BROKEN = Finding("broken", "it is\nbroken", "everything", advice="Buy a new one")
RAN = Trial("float32", "plain", "", 2e-7, 1e-7, 1.5, Executed({"cpu": 1200}, ("torch 2.13",)))
REPORT = Report(
    (Fact("cores", "2 cores"),),
    (
        Backend("eager", (Tried("cpu", ("cpu",), {}, (), (RAN, replace(RAN, wrong="no", executed=None))),)),
        Backend("far", absence="needs far_off>=2"),
    ),
    (("eager", BROKEN), ("threads", SLOW)),
    3.21,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is examined in place of this machine: a machine with a fault."""
    found: list[Any] = [REPORT]

    def examine(only: Any, **options: Any) -> Report:
        found.append((tuple(only), options["seconds"], [plugin.name for plugin in options["commands"]]))
        report: Report = found[0]
        return report

    monkeypatch.setattr(examination, "examine", examine)
    return found


def test_what_people_read(asked: list[Any]) -> None:
    ran = command("doctor")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == (
        "cores: 2 cores\n\n"
        "BACKEND  DEVICE  DTYPE    WEIGHTS  ANSWERS  ERROR                       WHAT RAN\n"
        "eager    cpu     float32  plain    right    2.0e-07 (2.0 of the usual)  1,200 on cpu, torch 2.13\n"
        "eager    cpu     float32  plain    wrong    2.0e-07 (2.0 of the usual)  it does not say\n"
        "far      -       -        -        -        -                           needs far_off>=2\n\n"
        "broken  eager: it is\\nbroken\n    costs: everything\n    fix:   Buy a new one\n\n"
        "slow  threads: it is cold\n    costs: time\n    fix:   warm --it\n    also:  Or wait\n\n"
        "1 broken, 1 slow, 0 remarks; 3.2 s\n"
    )
    assert asked[1][:2] == ((), examination.SECONDS) and {"serve", "batch"} <= set(asked[1][2])


def test_what_programs_read(asked: list[Any]) -> None:
    asked[0] = replace(REPORT, findings=(("threads", SLOW),))
    ran = command("doctor", "--json", "--backend", "eager", "--backend", "far", "--seconds", "5")
    told = json.loads(ran.out)
    assert (ran.code, told["ok"]) == (0, True)  # what is slow works
    assert told["findings"] == [
        {"about": "threads", "severity": "slow", "seen": "it is cold", "costs": "time", "command": "warm --it",
         "advice": "Or wait"}
    ]  # fmt: skip
    assert told["facts"] == {"cores": "2 cores"}
    assert told["backends"][0]["tried"][0]["trials"][0]["executed"]["pieces"] == {"cpu": 1200}
    assert asked[1][:2] == (("eager", "far"), 5.0)


def test_a_backend_that_there_is_not() -> None:
    ran = command("doctor", "--backend", "egaer")
    assert ran.code == 2 and "no backend 'egaer'" in ran.err and "'eager'" in ran.err


def test_the_whole_of_it_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that is always there, beside a plugin that would be that one."""
    monkeypatch.setattr(folders, "READING", 0.01)
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "odd", Stranger(PLUGIN.replace('"NAME"', '"reference"'), "broken", None, raising("submit")))
    ran = command("doctor", "--backend", "reference", "--json")
    told = json.loads(ran.out)
    broken = [each["seen"] for each in told["findings"] if each["severity"] == "broken"]
    assert ran.code == 1 and any("odd (odd-plugin 1.5) is broken" in each for each in broken), told["findings"]
    assert not [each for each in told["findings"] if each["about"] in ("tokenizer", "reference", "python")]
    assert {"versions", "cores", "memory", "downloaded models", "disk"} <= told["facts"].keys()
    (backend,) = told["backends"]
    (tried,) = backend["tried"]
    assert [(t["wrong"], t["executed"]["pieces"].keys()) for t in tried["trials"]] == [("", {"NumPy"})]


def test_commands_reach_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable)
    monkeypatch.setattr("shutil.which", lambda name: str(python.parent / name))
    text = "pip uninstall -y a && pip install pip && python -m x"
    assert here(text) == text
    monkeypatch.setattr("shutil.which", lambda name: f"/elsewhere/{name}")
    assert here(text) == f"{python} -m pip uninstall -y a && {python} -m pip install pip && {python} -m x"
    assert here("unset X") == "unset X" and here("") == ""


def test_a_check_that_fails_is_a_finding_and_no_end() -> None:
    def check() -> Any:
        yield Fact("cores", "2")
        raise RuntimeError("the system has gone mad")

    notes = Notes()
    notes.take("threads", check())
    notes.take("memory", [SLOW, SLOW])
    report = notes.report((), 1.0)
    assert [fact.name for fact in report.facts] == ["cores"]
    (about, first), (_, second) = report.findings
    assert about == "threads" and first.severity == "broken" and "the system has gone mad" in first.seen
    assert second == SLOW and not report.ok


def test_it_imports_nothing_heavy_before_it_begins() -> None:
    program = "import sys, ernie_rt.cli.doctor; print('numpy' in sys.modules or 'ernie_rt.doctor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
