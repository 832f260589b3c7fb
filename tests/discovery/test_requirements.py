"""What a backend requires, where alternatives bring the same package: as pip leaves them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ernie_rt.discovery.requirements import bringing, lack, overlap
from ernie_rt.hooks import BackendInfo, hookimpl
from ernie_rt.host import PluginHost
from support.commands import command

Install = Callable[..., Path]
INFO = BackendInfo("x", "x:X", "", {"cpu": ("float32",)}, requires=("slow-engine>=2 | fast_engine>=2",))


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution that has the package `engine`, as pip does."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, version: str = "2.1", package: str = "engine") -> Path:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        lines = (f"{package}/__init__.py,sha256=x,1", f"{package}/capi/{name}.so,,", f"{info.name}/RECORD,,")
        (info / "RECORD").write_text("\n".join(lines))
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").write_text("")
        importlib.invalidate_caches()
        return tmp_path / package / "__init__.py"

    return put


def test_none_of_them() -> None:
    assert lack(INFO) == "needs slow-engine>=2 | fast_engine>=2" and overlap(INFO) is None


def test_one_of_them(put: Install) -> None:
    put("fast_engine")
    assert lack(INFO) is None and overlap(INFO) is None


def test_one_that_is_too_old(put: Install) -> None:
    put("fast_engine", "1.0")
    assert lack(INFO) == "needs slow-engine>=2 | fast_engine>=2"


def test_a_pre_release_is_new_enough(put: Install) -> None:
    """Whoever installed it meant it."""
    put("fast_engine", "2.9.0rc1")
    assert lack(INFO) is None


def test_both_over_each_other(put: Install) -> None:
    put("fast_engine")
    put("slow_engine", "1.9")
    assert lack(INFO) is None
    assert overlap(INFO) == (
        "slow-engine 1.9 and fast-engine 2.1 share their files, so that removing one breaks the other: keep one "
        "(`pip uninstall -y slow-engine fast_engine`, then install it)"
    )


def test_both_side_by_side(put: Install) -> None:
    put("fast_engine")
    put("slow_engine", package="other")
    assert lack(INFO) is None and overlap(INFO) is None


def test_one_whose_files_went_with_the_other(put: Install) -> None:
    """pip removes the files that a distribution lists, whoever else lists them."""
    put("fast_engine").unlink()
    assert lack(INFO) == (
        "needs slow-engine>=2 | fast_engine>=2: the files of fast-engine 2.1 are gone, removed with a distribution "
        "that shared them; first `pip uninstall -y slow-engine fast_engine`"
    )


@pytest.mark.parametrize("broken", [False, True])
def test_where_it_is_said(broken: bool, put: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `backends`, by the choice of a backend, and by the error when it cannot be used."""
    onnx = replace(PluginHost().info("reference"), requires=INFO.requires, hint="pip install it")
    monkeypatch.setattr("ernie_rt.reference.ernie_rt_backends", hookimpl(lambda: [onnx]))
    for name in ("fast_engine", "slow_engine"):
        engine = put(name)
    if broken:
        engine.unlink()
    done = command("backends")
    said = "the files of slow-engine 2.1 and fast-engine 2.1 are gone" if broken else "share their files"
    assert said in (done.out if broken else done.err)
    ran = command("run", "demo", "Hello", "--backend", "reference", "-n", "1")
    assert ran.code == int(broken) and said in ran.err


def test_what_brings_a_module(put: Install) -> None:
    put("strange_command")
    metadata = next(iter(put("other").parents[1].glob("strange_command-*"))) / "METADATA"
    needs = (
        "Provides-Extra: docs", "Provides-Extra: web", "Requires-Dist: Prometheus.Client>=2",
        "Requires-Dist: far_off; python_version < '3'", "Requires-Dist: starlette>=1; extra == 'web'",
        "Requires-Dist: starlette; extra == 'web' and python_version < '3'",
    )  # fmt: skip
    metadata.write_text(metadata.read_text() + "".join(f"{line}\n" for line in needs))
    assert bringing("strange-command", "prometheus_client.core") == "pip install strange-command"
    assert bringing("strange-command", "starlette.routing") == "pip install 'strange-command[web]'"
    assert bringing("strange-command", "far_off") is None and bringing("strange-command", "unknown") is None
