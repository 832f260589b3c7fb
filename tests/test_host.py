"""Plugins of strangers: a broken one is listed with its cause and hurts nobody else."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.hooks import BackendInfo
from ernie_rt.host import PluginHost
from support.commands import command

GOOD = """
from ernie_rt.hooks import PLUGIN_API, BackendInfo
def ernie_rt_backends():
    return [BackendInfo("{0}", "{0}_backend:Engine", "a fine one", {{"cpu": ("float32",)}})]
"""
BROKEN = {
    "absent_module": (None, "ModuleNotFoundError: No module named 'absent_module'"),
    "import_error": ("import there_is_no_such_module", "ModuleNotFoundError: No module named 'there_is_no"),
    "syntax_error": ("def (", "SyntaxError: "),
    "leaves": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "no_api": ("def ernie_rt_backends(): return []", "speaks another plugin API; expected PLUGIN_API = 1"),
    "other_api": ("PLUGIN_API = 2", "expected PLUGIN_API = 1; found 2"),
    "raises": (GOOD.format("raises") + "def ernie_rt_backends(): return 1 / 0", "ZeroDivisionError: division by zero"),
    "leaves_later": ("PLUGIN_API = 1\ndef ernie_rt_backends(): raise SystemExit('bye')", "SystemExit: bye"),
    "needs_arguments": ("PLUGIN_API = 1\ndef ernie_rt_backends(host): return []", "TypeError: "),
    "returns_none": ("PLUGIN_API = 1\ndef ernie_rt_backends(): pass", "TypeError: 'NoneType' object is not iterable"),
    "strings": ("PLUGIN_API = 1\ndef ernie_rt_backends(): return ['x']", "announces what is no BackendInfo; found str"),
    "alike": (
        "PLUGIN_API = 1\nclass Info: name = 'alike'\ndef ernie_rt_backends(): return [Info()]",
        "announces what is no BackendInfo; found Info",
    ),
    "taken": (GOOD.format("good"), "announces backend 'good', which exists already"),
    "twice": (GOOD.format("twice").replace("return [", "return 2 * ["), "announces backend 'twice', which exists"),
    "halfway": (
        GOOD.format("halfway").replace("return [", "yield from [") + "    raise RuntimeError('no more')",
        "RuntimeError: no more",
    ),
}
"""Name of the plugin: its source, and how the cause of its failure begins, or what it contains."""

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write plugins and make them, beside the real reference, the only ones that are installed."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(sources: dict[str, str | None]) -> list[EntryPoint]:
        points = [EntryPoint("reference", "ernie_rt.reference", "ernie_rt")]
        for name, source in sources.items():
            if source is not None:
                (tmp_path / f"{name}.py").write_text(source)
            points.append(EntryPoint(name, name, "ernie_rt"))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == "ernie_rt" else [])
        return points

    yield write
    for name in set(sys.modules) - before:
        if not name.startswith("ernie_rt"):
            del sys.modules[name]


def test_each_broken_plugin_is_listed_with_its_cause_and_hurts_nobody(install: Install) -> None:
    sources = {"good": GOOD.format("good"), **{name: source for name, (source, _) in BROKEN.items()}}
    install(sources | {"last": GOOD.format("last")})
    host = PluginHost()
    assert set(host.backends) == {"reference", "good", "last"}
    assert host.backend("reference").devices() == ("cpu",)
    causes = {failure.plugin: failure.cause for failure in host.failures}
    assert causes.keys() == BROKEN.keys()
    for name, (_, cause) in BROKEN.items():
        assert cause in causes[name], name
        assert "\n" not in causes[name], name


def test_two_plugins_of_one_name(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install({"one": GOOD.format("one"), "two": GOOD.format("two")})
    points[2] = EntryPoint("one", "two", "ernie_rt")
    host = PluginHost()
    assert set(host.backends) == {"reference", "one"}
    (failure,) = host.failures
    assert failure.plugin == "one" and "already registered" in failure.cause


def test_interrupting_a_plugin_interrupts(install: Install) -> None:
    install({"slow": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        PluginHost()


def test_the_commands_go_on_beside_broken_plugins(install: Install, demo: Path) -> None:
    install({name: source for name, (source, _) in BROKEN.items()})
    listed = command("backends", "--json")
    assert listed.code == 0
    assert [row["name"] for row in json.loads(listed.out)] == ["reference", "good"]  # "taken" came first, so it is good
    assert all(f"plugin {name} failed: " in listed.err for name in BROKEN if name != "taken")
    assert command("run", demo, "hello", "-n", "2").code == 0
    asked = command("run", demo, "hello", "--backend", "leaves")
    assert asked.code == 2 and asked.out == ""
    assert "no backend 'leaves' (plugin leaves failed: SystemExit: 3)" in asked.err


def announcing(*infos: BackendInfo) -> ModuleType:
    plugin = ModuleType("extra")
    plugin.PLUGIN_API = 1  # type: ignore[attr-defined]
    plugin.ernie_rt_backends = lambda: infos  # type: ignore[attr-defined]
    return plugin


def info(target: str = "some_module:Engine", **fields: object) -> BackendInfo:
    return BackendInfo("extra", target, "", {"cpu": ("float32",)}, **fields)  # type: ignore[arg-type]


def test_no_plugins_at_all() -> None:
    host = PluginHost(entry_points=False)
    assert not host.backends and not host.failures
    with pytest.raises(OptionError, match="no backend 'eager'; expected one of none"):
        host.backend("eager")


def test_an_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(OptionError, match="no backend 'nope'; expected one of eager, reference") as caught:
        PluginHost().info("nope")
    assert caught.value.exit_code == 2 and caught.value.hint == "`ernie-rt backends` lists them"


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("numpy", True),
        ("numpy>=2.0", True),
        ("numpy>=99", False),
        ("there-is-no-such-package", False),
        ("there-is-no-such-package; sys_platform == 'nowhere'", True),
        ("numpy>=99; python_version > '3'", False),
        ("not a requirement!", False),
    ],
)
def test_requirements_are_checked_by_metadata(requirement: str, met: bool) -> None:
    lack = PluginHost(entry_points=False, extra=[announcing(info(requires=(requirement,)))]).missing("extra")
    assert lack == (None if met else f"needs {requirement}")


@pytest.mark.parametrize(
    ("version", "requirement"), [(None, "numpy"), (None, "numpy>=2"), ("not a version", "numpy>=2")]
)
def test_a_package_with_broken_metadata_is_not_there(
    version: object, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    host = PluginHost(entry_points=False, extra=[announcing(info(requires=(requirement,)))])
    assert host.missing("extra") == f"needs {requirement}"


def test_a_missing_requirement_is_an_error_with_its_remedy(install: Install, demo: Path) -> None:
    install(
        {
            "needy": GOOD.format("needy").replace(
                '("float32",)}', '("float32",)}, ("absent-package>=3", "numpy"), "pip install absent-package"'
            )
        }
    )
    with pytest.raises(BackendError, match=r"it needs absent-package>=3\. pip install absent-package"):
        PluginHost().backend("needy")
    ran = command("run", demo, "hello", "--backend", "needy")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "pip install absent-package" in ran.err
    (row,) = [row for row in json.loads(command("backends", "--json").out) if row["name"] == "needy"]
    assert not row["usable"] and row["status"] == "needs absent-package>=3: pip install absent-package"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (None, "ModuleNotFoundError"),
        ("import there_is_no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("", "AttributeError"),
        ("class Engine:\n    def __init__(self): raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("class Engine:\n    def __init__(self, device): pass", "TypeError"),
    ],
)
def test_a_backend_that_does_not_load_is_a_backend_error(
    source: str | None, cause: str, install: Install, demo: Path
) -> None:
    install({"shaky": GOOD.format("shaky")})
    if source is not None:
        (Path(sys.path[0]) / "shaky_backend.py").write_text(source)
    with pytest.raises(BackendError, match="backend 'shaky' did not load") as caught:
        PluginHost().backend("shaky")
    assert cause in caught.value.what and caught.value.where == "shaky_backend:Engine"
    ran = command("run", demo, "hello", "--backend", "shaky")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)


def test_a_backend_is_constructed_once(install: Install) -> None:
    install({"fine": GOOD.format("fine")})
    (Path(sys.path[0]) / "fine_backend.py").write_text("class Engine: pass")
    host = PluginHost()
    assert "fine_backend" not in sys.modules
    assert host.backend("fine") is host.backend("fine")
