"""What is installed: packages that are damaged, old or over each other, plugins that cannot be used."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.contract import Finding
from ernie_rt.discovery.installed import Plugin
from ernie_rt.discovery.requirements import damaged, outdated, reinstall
from ernie_rt.doctor import installation
from ernie_rt.doctor.report import Fact
from ernie_rt.hooks import BackendInfo

Put = Callable[..., Path]
INFO = BackendInfo("quick", "quick:X", "", {"cpu": ("float32",)}, requires=("slow-engine>=2 | fast_engine>=2", "oil"))


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Install a distribution with a package `engine`, as pip does, and further files of metadata."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, version: str = "2.1", package: str = "engine", needs: str = "", **files: str) -> Path:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        (tmp_path / package / "capi").mkdir(parents=True, exist_ok=True)
        sizes = {"__init__.py": 0, f'capi/{name}, "the" library.so': 5}
        for file, size in sizes.items():
            (tmp_path / package / file).write_text("x" * size)
        lines = [("../../bin/engine", "sha256=x", 9), (f"{info.name}/RECORD", "", "")]
        lines += [(f"{package}/{file}", "sha256=x", size) for file, size in sizes.items()]
        with (info / "RECORD").open("w", newline="") as record:
            csv.writer(record).writerows([*lines, (f"{package}/__pycache__/__init__.pyc", "", "")])
        for file, content in files.items():
            (info / f"{file}.json").write_text(content)
        importlib.invalidate_caches()
        return tmp_path / package

    return put


def test_what_is_installed_here() -> None:
    """Whatever it is, it is whole."""
    versions, *others = installation.python()
    assert isinstance(versions, Fact) and sys.version.split()[0] in versions.text and not others
    assert not outdated("ernie-rt")


def test_a_package_of_which_files_are_gone_or_cut_off(put: Put) -> None:
    engine = put("oil")
    library = engine / 'capi/oil, "the" library.so'
    assert not damaged(distribution("oil"))
    for spoil in (lambda: library.write_text("123"), library.unlink):
        spoil()
        (finding,) = [each for each in installation.packages({"quick": INFO}) if "oil" in each.seen]
        assert finding.severity == "broken" and "oil 2.1 is damaged" in finding.seen and "library.so" in finding.seen
        assert finding.command == "pip install --force-reinstall --no-deps oil==2.1"
    library.write_text("x" * 5)
    assert not damaged(distribution("oil"))


def test_packages_over_each_other_and_what_is_left_of_them(put: Put) -> None:
    put("slow_engine")
    engine = put("fast_engine", "2.5")
    for seen in ("share their files", "are gone, removed with a distribution that shared them"):
        (finding,) = [each for each in installation.packages({"quick": INFO}) if "engine" in each.seen]
        assert finding.severity == "broken" and seen in finding.seen
        assert finding.command == "pip uninstall -y slow-engine fast_engine && pip install 'slow-engine>=2'"
        (engine / "__init__.py").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("", "oil==2.1"),
        ('{"url": "file:///a%20b/oil", "dir_info": {"editable": true}}', "--editable '/a b/oil'"),
        ('{"url": "file:///w/oil-2.1.whl", "archive_info": {}}', "/w/oil-2.1.whl"),
        ('{"url": "https://example.org/oil.whl", "archive_info": {}}', "https://example.org/oil.whl"),
        ("[3]", "oil==2.1"),
        ("{", "oil==2.1"),
    ],
)
def test_where_a_package_is_installed_from_anew(origin: str, source: str, put: Put) -> None:
    put("oil", "2.1+cpu", direct_url=origin)
    assert reinstall(distribution("oil")) == f"pip install --force-reinstall --no-deps {source}"


def test_what_is_older_than_it_should_be(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of extras what is installed counts; of the rest, all."""
    needs = (
        "Provides-Extra: web", "Requires-Dist: oil>=3", "Requires-Dist: absent>=1", "Requires-Dist: grease>=2",
        "Requires-Dist: far_off; python_version < '3'", "Requires-Dist: soap>=9; extra == 'web'",
        "Requires-Dist: missing; extra == 'web'",
    )  # fmt: skip
    put("car", needs="".join(f"{line}\n" for line in needs))
    for name in ("oil", "grease", "soap"):
        put(name)
    assert outdated("car") == ["oil>=3", "absent>=1", "soap>=9"]
    monkeypatch.setattr(installation, "outdated", lambda name: ["oil>=3", "soap>=9"])
    old, *_ = installation.packages({})
    assert (old.severity, old.command) == ("broken", "pip install 'oil>=3' 'soap>=9'")


@pytest.mark.parametrize(
    ("plugin", "severity", "command", "advice"),
    [
        ({"status": "broken", "cause": "it is", "fix": "pip uninstall x"}, "broken", "pip uninstall x", ""),
        (
            {"status": "other api", "cause": "3", "fix": "pip install x; whoever"},
            "broken",
            "",
            "pip install x; whoever",
        ),
        ({"status": "off", "cause": "switched off"}, "remark", "unset ERNIE_RT_PLUGINS", ""),
        ({"status": "ok", "cause": "prints when it is imported: hello"}, "remark", "", ""),
        ({"status": "ok"}, None, "", ""),
        ({"status": "unmet", "cause": "needs torch"}, None, "", ""),
    ],
)
def test_plugins(plugin: dict[str, Any], severity: str | None, command: str, advice: str) -> None:
    found = list(installation.plugins([Plugin("x", "x", "x-plugin", **plugin)]))
    assert [each.severity for each in found] == [severity] * (severity is not None)
    assert all((each.command, each.advice) == (command, advice) for each in found)


def test_an_entry_point_that_an_older_version_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Plugin("ghost", "ernie_rt_ghost", "ernie-rt", "0.1.0", True, "broken", "No module named 'ernie_rt_ghost'")
    (finding,) = installation.plugins([stale])
    assert finding.severity == "broken" and finding.command == reinstall(distribution("ernie-rt"))


def test_a_python_that_is_too_old_and_has_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.10.4")
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    _, old, bare = installation.python()
    assert isinstance(old, Finding) and "Python 3.10.4, where ernie-rt needs >=3.11" in old.seen
    assert isinstance(bare, Finding) and bare.command == "python -m ensurepip"
