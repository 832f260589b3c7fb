"""`ernie-rt plugins`, and every command beside twelve plugins that are broken, each in its own way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.conformance import trial
from ernie_rt.discovery import announcement
from support.broken_plugins import GOOD, PLUGIN, TWELVE, Stranger, forget, install, install_twelve
from support.commands import START, command


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("ERNIE_RT_PLUGINS", raising=False)
    yield tmp_path
    forget(tmp_path)


def imported(site: Path) -> set[str]:
    note = site / "imported"
    return set(note.read_text().split()) if note.exists() else set()


def listed(*arguments: str) -> dict[str, dict[str, Any]]:
    ran = command(*arguments, "plugins", "--json")
    assert (ran.code, ran.err) == (0, "")
    return {row["distribution"].removesuffix("-plugin"): row for row in json.loads(ran.out)}


def test_twelve_broken_plugins_are_named_with_their_causes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "SECONDS", 4.0)
    install_twelve(site)
    assert len(TWELVE) == 12
    rows = listed()
    for name, stranger in TWELVE.items():
        row = rows[name]
        assert (row["status"], row["version"], row["built_in"]) == (stranger.status, "1.5", False), row
        assert stranger.cause is not None and stranger.cause in row["failure"], row
        if stranger.status != "ok":
            newer = stranger.status == "other api"
            assert row["fix"] == ("pip install --upgrade ernie-rt" if newer else f"pip uninstall {name}-plugin")
    assert rows["double_again"]["status"] == "duplicate"
    submit = rows["submit"]
    assert (submit["api"], submit["hooks"], submit["backends"]) == (2, ["ernie_rt_backends"], ["submit"])
    assert 0 <= submit["import_seconds"] < 4
    assert rows["otherapi"]["api"] == 3 and rows["leaves"]["api"] is None
    # Those that their metadata alone rule out are never imported.
    assert not imported(site) & {"double", "double_again", "shadow"}
    assert sys.modules.keys().isdisjoint(TWELVE)


def test_every_command_works_beside_them(site: Path, untrained: Path) -> None:
    install_twelve(site)
    helped = subprocess.run([*START, "--help"], capture_output=True, text=True)
    assert (helped.returncode, helped.stderr) == (0, "") and "plugins" in helped.stdout
    for arguments in (
        ["--version"],
        ["models"],
        ["tokenize", untrained, "hello"],
        ["graph", "0.3B", "--lowered", "reference"],
        ["run", untrained, "hello", "-n", "2"],
        ["conform", "reference", "--level", "L0"],
        ["run", untrained, "hello", "-n", "2", "--backend", "eager", "--json"],
    ):
        ran = command(*arguments)
        assert ran.code == 0 and ran.out, arguments
    assert imported(site) == set()
    backends = command("-p", "no:endless", "backends", "--json")
    assert backends.code == 0
    names = [row["name"] for row in json.loads(backends.out)]
    assert names == ["onnx", "eager", "reference", "cudagraph", "close", "constructor", "noisy", "submit"]
    assert "plugin shadow" not in backends.err
    assert "plugin eager: shadows a built-in: 'eager' is a built-in plugin, which stays\n" in backends.err
    assert "plugin leaves: broken: SystemExit: 3\n" in backends.err and "endless" not in backends.err


def test_noise_does_not_reach_the_answer(site: Path, untrained: Path) -> None:
    install(site, "noisy", TWELVE["noisy"])
    ran = command("run", untrained, "hello", "-n", "2", "--backend", "noisy", "--json")
    assert ran.code == 0 and json.loads(ran.out)["backend"] == "noisy"
    assert ran.err.startswith("[[\n")
    assert json.loads(command("backends", "--json").out)[-1]["name"] == "noisy"


def test_the_suite_names_what_a_backend_raises(site: Path) -> None:
    for name in ("submit", "close", "constructor", "noisy"):
        install(site, name, TWELVE[name])
    levels = ("--level", "L0", "--level", "L2", "--json")
    for name in ("submit", "close"):
        ran = command("conform", name, *levels)
        assert ran.code == 1
        reason = f"BackendError: backend '{name}' failed: RuntimeError: no {name} today"
        assert reason in {result["reason"] for result in json.loads(ran.out)["results"]}
    ran = command("conform", "constructor", *levels)
    assert (ran.code, ran.out) == (1, "") and "backend 'constructor' did not load: RuntimeError" in ran.err
    ran = command("conform", "noisy", "--level", "L0", "--json")
    assert ran.code == 0 and json.loads(ran.out)["ok"]


def test_the_table(site: Path) -> None:
    install(site, "good", GOOD)
    install(site, "otherapi", TWELVE["otherapi"])
    ran = command("plugins")
    assert (ran.code, ran.err) == (0, "")
    header, *lines = ran.out.splitlines()
    assert header.split() == ["NAME", "KIND", "STATUS", "DISTRIBUTION", "API", "IMPORT", "HOOKS"]
    found = {cells[0]: cells[1:] for cells in map(str.split, lines[:10])}
    assert list(found)[:6] == ["cudagraph", "eager", "onnx", "reference", "good", "otherapi"]
    assert found["eager"][:5] == ["backend", "ok", "ernie-rt", "0.1.0", "2"]
    assert found["good"][:5] == ["backend", "ok", "good-plugin", "1.5", "2"]
    assert found["good"][6:] == ["ms", "ernie_rt_backends"]
    assert found["otherapi"][:6] == ["backend", "other", "api", "otherapi-plugin", "1.5", "3"]
    assert found["serve"][0] == "command" and found["serve"][-1] == "-"
    told = lines.index("otherapi (otherapi-plugin 1.5): speaks another plugin API; expected PLUGIN_API = 2; found 3")
    assert lines[told + 1] == "  pip install --upgrade ernie-rt"


def test_what_a_backend_lacks_is_told_and_not_tried(site: Path) -> None:
    needs = '("float32",)}, ("absent-package",), "pip install absent-package"'
    install(site, "needy", Stranger(PLUGIN.replace('("float32",)}', needs), "unmet", None, "raise SystemExit"))
    row = listed()["needy"]
    assert (row["status"], row["failure"], row["fix"]) == (
        "unmet",
        "needs absent-package",
        "pip install absent-package",
    )


def test_a_backend_that_never_ends_is_stopped(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1.0)
    install(site, "stuck", Stranger(PLUGIN, "fails when used", None, "while True: pass"))
    row = listed()["stuck"]
    assert (row["status"], row["failure"]) == ("fails when used", "running a small model takes longer than 1 s")
    assert row["fix"] == "pip uninstall stuck-plugin"


def test_leaving_plugins_out(site: Path, untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "good", GOOD)
    ran = command("-p", "no:good", "run", untrained, "hello", "--backend", "good")
    assert ran.code == 1 and "backend 'good' cannot be used: switched off by -p or ERNIE_RT_PLUGINS" in ran.err
    ran = command("-p", "no:onnx", "-p", "no:eager", "-p", "no:good", "run", untrained, "hello", "-n", "1")
    assert ran.code == 0 and "eager is off" in ran.err and "reference" in ran.err.splitlines()[-1]
    ran = command("-p", "good", "models")
    assert (ran.code, ran.out) == (2, "") and "expected no:NAME; found 'good'" in ran.err
    assert "ERNIE_RT_PLUGINS" not in os.environ
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "")
    row = listed()["good"]
    assert (row["status"], row["failure"]) == ("off", "switched off by -p or ERNIE_RT_PLUGINS")
    names = [row["name"] for row in json.loads(command("backends", "--json").out)]
    assert names == ["onnx", "eager", "reference", "cudagraph"]
    assert imported(site) == set()
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "good")
    assert listed()["good"]["status"] == "ok"
