"""The host: built-in plugins at once, strangers' when asked for, and backends that do not load or break their word."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ernie_rt.discovery import announcement
from ernie_rt.errors import BackendError, OptionError, PluginError
from ernie_rt.hooks import BackendInfo, hookimpl
from ernie_rt.host import PluginHost
from support.broken_plugins import ENGINE, GOOD, PLUGIN, Stranger, forget, install, raising
from support.commands import command
from support.installed import CUDAGRAPH


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, for plugins."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ERNIE_RT_PLUGINS", raising=False)
    yield tmp_path
    forget(tmp_path)


def imported(site: Path) -> list[str]:
    """The plugins that were imported, wherever, one by one."""
    note = site / "imported"
    return note.read_text().split() if note.exists() else []


def test_a_stranger_is_imported_when_it_is_asked_for(site: Path) -> None:
    install(site, "good", GOOD)
    install(site, "other", GOOD)
    host = PluginHost()
    assert {"cudagraph", "eager", "onnx", "reference"} == set(host.backends)
    host.info("eager")
    with pytest.raises(
        OptionError, match="no backend 'nope'; expected one of cudagraph, eager, good, onnx, other, reference"
    ):
        host.info("nope")
    assert imported(site) == []
    assert host.info("good") == BackendInfo("good", "good_engine:Engine", "made for tests", {"cpu": ("float32",)})
    host.info("good")
    assert imported(site) == ["good"] and "good" not in sys.modules
    assert host.backend("good").devices() == ("cpu",)
    assert host.backend("good") is host.backend("good")
    assert [plugin.status for plugin in host.examine()] == [CUDAGRAPH, *5 * ["ok"]]
    assert sorted(imported(site)) == ["good", "other"]
    assert set(host.backends) == {"cudagraph", "eager", "good", "onnx", "other", "reference"}


def test_a_plugin_that_is_broken_is_named_with_its_remedy(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "SECONDS", 1.0)
    install(site, "endless", Stranger("while True: pass", "broken", None))
    install(site, "newer", Stranger("PLUGIN_API = 3", "other api", None))
    install(site, "older", Stranger("PLUGIN_API = 0", "other api", None))
    install(site, "orphan", Stranger(None, "broken", None))
    install(site, "one", Stranger(PLUGIN, "duplicate", None, entry="twin = NAME"))
    install(site, "two", Stranger(PLUGIN, "duplicate", None, entry="twin = NAME"))
    host = PluginHost()
    for name, message in {
        "endless": "endless-plugin: backend 'endless' cannot be used: importing it takes longer than 1 s. pip",
        "newer": "found 3. pip install --upgrade ernie-rt",
        "older": "found 0. pip install --upgrade older-plugin; whoever wrote it finds what changed in docs/backends.md",
        "orphan": "No module named 'orphan'. pip uninstall orphan-plugin",
        "twin": "one-plugin, two-plugin: backend 'twin' cannot be used: another distribution has",
    }.items():
        with pytest.raises(PluginError) as caught:
            host.info(name)
        assert message in str(caught.value) and caught.value.exit_code == 1
    assert {plugin.name for plugin in host.failures} == {"endless", "newer", "older", "orphan", "twin"}


def test_backends_are_found_by_the_names_of_entry_points(site: Path) -> None:
    both = PLUGIN.replace("return [", "return [BackendInfo('second', 'm:C', '', {'cpu': ('float32',)}), ")
    install(site, "first", Stranger(both, "ok", None, entry="first = NAME\nsecond = NAME"))
    install(site, "third", Stranger(both, "broken", None))
    host = PluginHost()
    assert host.info("second").target == "m:C" and set(host.backends) == {
        "cudagraph",
        "eager",
        "onnx",
        "reference",
        "second",
    }
    assert host.info("first").target == "first_engine:Engine"
    with pytest.raises(PluginError, match="announces backend 'second', and has no entry point of that name"):
        host.info("third")


def test_one_of_two_may_be_off(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = PLUGIN.replace("return [", "return [BackendInfo('second', 'm:C', '', {'cpu': ('float32',)}), ")
    install(site, "first", Stranger(both, "ok", None, entry="first = NAME\nsecond = NAME"))
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "no:second")
    host = PluginHost()
    host.examine()
    assert set(host.backends) == {"cudagraph", "eager", "onnx", "reference", "first"}
    with pytest.raises(PluginError, match="'second' cannot be used: switched off by -p or ERNIE_RT_PLUGINS"):
        host.info("second")


def test_no_announcement_replaces_a_built_in_backend(site: Path) -> None:
    install(site, "eager", Stranger(PLUGIN, "ok", None, entry="eager = NAME\nmine = NAME"))
    host = PluginHost()
    assert [plugin.status for plugin in host.examine()] == [CUDAGRAPH, "ok", "ok", "ok", "shadows a built-in", "ok"]
    assert host.info("eager").target == "ernie_rt_eager.backend:EagerBackend"


def test_a_built_in_plugin_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERNIE_RT_PLUGINS", "no:eager")
    host = PluginHost()
    assert set(host.backends) == {"cudagraph", "onnx", "reference"} and host.absence("eager") == "off"
    assert not host.failures


def announcing(*infos: BackendInfo) -> ModuleType:
    plugin = ModuleType("extra")
    plugin.PLUGIN_API = 2  # type: ignore[attr-defined]
    plugin.ernie_rt_backends = hookimpl(lambda: infos)  # type: ignore[attr-defined]
    return plugin


def info(target: str = "some_module:Engine", **fields: object) -> BackendInfo:
    return BackendInfo("extra", target, "", {"cpu": ("float32",)}, **fields)  # type: ignore[arg-type]


def test_extra_plugins_take_no_name_that_is_there() -> None:
    for infos in ([info(), info()], [info(), BackendInfo("eager", "a:b", "", {"cpu": ("float32",)})]):
        host = PluginHost(extra=[announcing(*infos)])
        assert set(host.backends) == {"cudagraph", "eager", "onnx", "reference"}  # all of a plugin's backends, or none
        (failure,) = host.failures
        assert failure.cause == f"announces backend {infos[1].name!r}, which exists already"


def test_no_plugins_at_all() -> None:
    host = PluginHost(entry_points=False)
    assert not host.backends and not host.failures and not host.examine()
    with pytest.raises(OptionError, match="no backend 'eager'; expected one of none"):
        host.backend("eager")


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("numpy", True),
        ("numpy>=2.0", True),
        ("numpy>=99", False),
        ("there-is-no-such-package", False),
        ("there-is-no-such-package; sys_platform == 'nowhere'", True),
        ("numpy>=99; python_version > '3'", False),
    ],
)
def test_requirements_are_checked_by_metadata(requirement: str, met: bool) -> None:
    host = PluginHost(entry_points=False, extra=[announcing(info(requires=(requirement,), hint="pip install it"))])
    assert host.missing("extra") == (None if met else f"needs {requirement}")
    (plugin,) = host.examine()
    assert (plugin.status, plugin.fix) == (("ok", None) if met else ("unmet", "pip install it"))


@pytest.mark.parametrize(
    ("version", "requirement"), [(None, "numpy"), (None, "numpy>=2"), ("not a version", "numpy>=2")]
)
def test_a_package_with_broken_metadata_is_not_there(
    version: object, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    host = PluginHost(entry_points=False, extra=[announcing(info(requires=(requirement,)))])
    assert host.missing("extra") == f"needs {requirement}"


def test_a_missing_requirement_is_an_error_with_its_remedy(site: Path, untrained: Path) -> None:
    needs = '("float32",)}, ("absent-package>=3", "numpy"), "pip install absent-package"'
    install(site, "needy", Stranger(PLUGIN.replace('("float32",)}', needs), "unmet", None))
    with pytest.raises(BackendError, match=r"it needs absent-package>=3\. pip install absent-package"):
        PluginHost().backend("needy")
    ran = command("run", untrained, "hello", "--backend", "needy")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "pip install absent-package" in ran.err
    (row,) = [row for row in json.loads(command("backends", "--json").out) if row["name"] == "needy"]
    assert not row["usable"] and row["status"] == "needs absent-package>=3: pip install absent-package"


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        (None, "ModuleNotFoundError"),
        ("import there_is_no_such_module", "ModuleNotFoundError"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        ("", "AttributeError"),
        ("class Engine:\n    def __init__(self): raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("class Engine:\n    def __init__(self, device): pass", "TypeError"),
    ],
)
def test_a_backend_that_does_not_load(
    engine: str | None, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shaky_engine", raising=False)
    if engine is not None:
        (tmp_path / "shaky_engine.py").write_text(engine)
    with pytest.raises(BackendError, match="backend 'extra' did not load") as caught:
        PluginHost(entry_points=False, extra=[announcing(info("shaky_engine:Engine"))]).backend("extra")
    assert cause in caught.value.what and caught.value.where == "shaky_engine:Engine"
    sys.modules.pop("shaky_engine", None)


def test_an_interrupt_that_a_library_tells_as_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pybind11 raises ImportError from whatever ends the start of a module; the next backend must not be tried then."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stopped.py").write_text(
        "try:\n    raise KeyboardInterrupt\nexcept BaseException as error:\n"
        "    raise ImportError('initialization failed') from error\n"
    )
    with pytest.raises(KeyboardInterrupt):
        PluginHost(entry_points=False, extra=[announcing(info("stopped:Engine"))]).backend("extra")


def test_a_backend_that_takes_long_to_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ernie_rt.host.SECONDS", 0.05)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sluggish.py").write_text("import time\ntime.sleep(0.3)\nclass Engine: pass")
    PluginHost(entry_points=False, extra=[announcing(info("sluggish:Engine"))]).backend("extra")
    del sys.modules["sluggish"]
    assert capsys.readouterr().err == "backend 'extra' is still being imported (sluggish:Engine); Ctrl-C stops it\n"


@pytest.mark.parametrize("how", ["RuntimeError", "SystemExit"])
@pytest.mark.parametrize("method", ["submit", "memory", "close"])
def test_what_a_backend_raises_names_it(method: str, how: str, site: Path, untrained: Path) -> None:
    engine = ENGINE.replace("pass", raising(method).replace("RuntimeError", how))
    install(site, "shaky", Stranger(PLUGIN, "fails when used", None, engine))
    ran = command("run", untrained, "hello", "-n", "2", "--backend", "shaky", "--json")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == f"ernie-rt: backend 'shaky' failed: {how}: no {method} today"
    # An answer that is there is given, whatever happens at the end.
    assert (len(json.loads(ran.out)["ids"]) == 2) if method == "close" else ran.out == ""


def test_closing_hides_no_error(site: Path, untrained: Path) -> None:
    import ernie_rt

    install(site, "shaky", Stranger(PLUGIN, "fails when used", None, ENGINE.replace("pass", raising("close"))))
    with (
        pytest.raises(KeyError, match="mine") as caught,
        ernie_rt.load(untrained, backend="shaky", max_context=16) as model,
    ):
        raise KeyError("mine")
    assert caught.value.__notes__ == ["backend 'shaky' failed: RuntimeError: no close today"]
    with pytest.raises(BackendError, match="no close today"):
        model.close()


def test_devices_that_are_none(site: Path, untrained: Path) -> None:
    for source in ("return None", "return [1]", "raise SystemExit"):
        engine = f"{ENGINE}\n    def devices(self):\n        {source}"
        install(site, "shaky", Stranger(PLUGIN, "fails when used", None, engine))
        ran = command("run", untrained, "hello", "--backend", "shaky")
        assert ran.code == 1 and "ernie-rt: backend 'shaky' cannot name its devices: " in ran.err
        sys.modules.pop("shaky_engine")
        for path in sorted(site.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "requirement, found",
    [("numpy>=1 | no-such-thing>=2", None), ("no-such-thing>=2 | numpy>=1", None),
     ("numpy>=999 | no-such-thing", "needs numpy>=999 | no-such-thing")],
)  # fmt: skip
def test_either_of_two_requirements_is_enough(requirement: str, found: str | None) -> None:
    host = PluginHost(entry_points=False, extra=[announcing(info(requires=(requirement,)))])
    assert host.missing("extra") == found
