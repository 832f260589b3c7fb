"""Backends that crash, hang, leave, answer wrongly or well, each seen by `doctor` from its own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_rt.discovery.installed import Plugin
from ernie_rt.doctor import backends, trial
from ernie_rt.doctor.backends import try_out
from ernie_rt.errors import PluginError
from ernie_rt.hooks import BackendInfo
from ernie_rt.host import PluginHost
from support.broken_plugins import ENGINE, PLUGIN, Stranger, forget, install

BODY = "def submit(self, step):\n        {}\n"
CRASH = BODY.format("import ctypes; ctypes.string_at(0)")
WRONG = BODY.format("done = super().submit(step); done.result().logits[:] = done.result().logits[:, ::-1]; return done")
SAYS = """def executed(self):
        from ernie_rt.contract import Executed, Finding
        return Executed({"the chip": 7}, ("firmware 9",), (Finding("slow", "cold", "time", "warm it"),))
"""
EXAMINED = """
    def examine(self, target):
        from ernie_rt.contract import Finding
        yield Finding("remark", f"no fan on {target.device}", "noise")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget(tmp_path)


def plugin(site: Path, engine: str, name: str = "odd") -> tuple[Plugin, BackendInfo]:
    install(site, name, Stranger(PLUGIN, "ok", None, engine))
    return Plugin(name, name, f"{name}-plugin"), BackendInfo(name, f"{name}_engine:Engine", "", {"cpu": ("float32",)})


def test_one_that_says_what_it_has_to_say(site: Path) -> None:
    """In the child process: what it promises not, experts, it is not put to."""
    odd, info = plugin(site, f"{ENGINE.replace('pass', SAYS)}{EXAMINED}")
    backend, findings = try_out(odd, info, 60.0)
    (tried,) = backend.tried
    assert (tried.device, tried.devices) == ("cpu", ("cpu",))
    (ran,) = tried.trials
    assert (ran.dtype, ran.storage, ran.wrong) == ("float32", "plain", "")
    assert ran.error is not None and ran.noise is not None and 0 < ran.error < 1e-5
    assert ran.executed is not None and ran.executed.pieces == {"the chip": 7}
    assert [(each.severity, each.seen) for each in findings] == [("remark", "no fan on cpu"), ("slow", "cold")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "seen"),
    [
        (CRASH, "running a small model ends the process with signal SIGSEGV"),
        (BODY.format("import os; os._exit(3)"), "running a small model ends the process with exit code 3"),
        (BODY.format("import threading; threading.Event().wait()"), "running a small model takes longer than 12 s"),
        (BODY.format("raise RuntimeError('no')"), "BackendError: backend 'odd' failed: RuntimeError: no"),
        (WRONG, "cpu in float32: "),
        (SAYS.replace('"slow"', '"fatal"'), "TypeError: a Finding has a severity, one of "),
        (SAYS.replace("7", '"many"'), "TypeError: what was Executed is "),
        (SAYS.replace('"cold"', '"x" * 2000000'), "running a small model is answered with more than 1 MiB"),
    ],
)
def test_ones_that_do_not_work(engine: str, seen: str, site: Path) -> None:
    odd, info = plugin(site, ENGINE.replace("pass", engine))
    _, findings = try_out(odd, info, 12.0)
    (finding,) = findings
    assert finding.severity == "broken" and seen.removeprefix("BackendError: ") in finding.seen, finding.seen
    assert finding.command == "pip uninstall odd-plugin"


def test_wrong_answers_are_seen(site: Path) -> None:
    """Here, without a child process: those of a backend that answers, and those of one that does not."""
    for name, engine in (("wrong", WRONG), ("none", BODY.format("raise RuntimeError('no')"))):
        odd, info = plugin(site, ENGINE.replace("pass", engine), name)
        module = __import__(odd.module)
        tried = trial.attempt(PluginHost(entry_points=False, extra=[module]), name, "")
        (ran,) = tried.trials
        assert ran.wrong and (ran.error is None) == (name == "none")
        (finding,) = backends._judge(odd, info, "cpu", ran)
        assert finding.severity == "broken" and finding.seen.startswith(f"{name} on cpu in float32: ")


def test_the_demo_is_known_and_survives_the_way_from_a_child() -> None:
    told = json.loads(json.dumps(trial.run("reference", "ernie_rt.reference", "cpu")))
    (ran,) = trial.unpack(told).trials
    assert (ran.wrong, ran.storage) == ("", "plain") and ran.noise is not None and ran.error is not None
    assert 0 < ran.error < ran.noise  # float64 beside float32's rounding
    assert ran.executed is not None and ran.executed.pieces.keys() == {"NumPy"}


@pytest.mark.parametrize(
    ("kinds", "gpu", "severity"),
    [(("cpu",), False, "remark"), (("cuda",), False, None), (("cuda",), True, "slow"), (("cpu", "cuda"), True, "slow")],
)
def test_one_that_is_not_installed(
    kinds: tuple[str, ...], gpu: bool, severity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "accelerators", lambda: ("cuda",) if gpu else ())
    dtypes = dict.fromkeys(kinds, ("float32",))
    info = BackendInfo("far", "far:X", "far away", dtypes, ("far_off>=2",), "pip install far")  # type: ignore[arg-type]
    backend, findings = try_out(Plugin("far", "far"), info, 1.0)
    assert backend.absence == "needs far_off>=2"
    assert [each.severity for each in findings] == [severity] * (severity is not None)
    assert all(each.command == "pip install far" for each in findings)


@pytest.mark.parametrize(
    ("broken", "expected", "seen"),
    [
        (None, ["", "cuda:1", "cpu"], []),
        ("cuda:1", ["", "cuda:1", "cpu"], ["x on cuda:1: it ends"]),
        ("", ["", "cpu"], ["x: it ends"]),
    ],
)
def test_every_device_is_tried_and_a_gpu_that_fails_leaves_the_cpu(
    broken: str | None, expected: list[str], seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def call(target: str, name: str, module: str, device: str, **_: object) -> tuple[dict[str, object], str]:
        asked.append(device)
        if device == broken:
            raise PluginError("it ends")
        devices = ("cuda:0", "cuda:1", "cpu")
        return {"device": device or "cuda:0", "devices": devices, "lacking": {}, "findings": [], "trials": []}, ""

    monkeypatch.setattr(backends.child, "call", call)
    monkeypatch.setattr(backends, "accelerators", lambda: ("cuda",))
    info = BackendInfo("x", "x:X", "", {"cuda": ("bfloat16",), "cpu": ("float32",)})
    _, findings = try_out(Plugin("x", "x"), info, 1.0)
    assert asked == expected and [each.seen for each in findings] == seen


def test_a_gpu_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "accelerators", lambda: ("cuda",))
    tried = trial.Tried("cpu", ("cpu",), {"cuda": "it is too old"})
    assert [each.seen for each in backends._idle(tried)] == ["no cuda device is used: it is too old"]
    monkeypatch.setattr(backends, "accelerators", lambda: ())
    assert not list(backends._idle(tried))
