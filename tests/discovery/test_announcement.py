"""What a plugin announces, field by field, and what becomes of one that announces something else."""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pluggy
import pytest

from ernie_rt import hooks
from ernie_rt.discovery.announcement import FIELDS, announced, check, examine
from ernie_rt.discovery.installed import Plugin
from ernie_rt.errors import PluginError
from ernie_rt.hooks import BackendInfo

HOOK = "from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl\n@hookimpl\ndef ernie_rt_backends(): "
INFO = 'BackendInfo("chip", "chip.backend:Chip", "", {"cpu": ("float32",)})'
GOOD = BackendInfo("chip", "chip.backend:Chip", "", {"cpu": ("float32",)})

PLUGINS = {
    "no api": ("", "other api", "expected PLUGIN_API = 2; found None"),
    "newer api": ("PLUGIN_API = 3", "other api", "expected PLUGIN_API = 2; found 3"),
    "odd api": ("PLUGIN_API = '2'", "other api", "found None"),
    "raises": (HOOK + "1 / 0", "broken", "ZeroDivisionError: division by zero"),
    "leaves": (HOOK + "raise SystemExit('bye')", "broken", "SystemExit: bye"),
    "too many arguments": (HOOK.replace("()", "(host)") + "return []", "broken", "PluginValidationError"),
    "returns nothing": (HOOK + "pass", "ok", None),
    "returns no list": (HOOK + "return 3", "broken", "TypeError: 'int' object is not iterable"),
    "strings": (HOOK + "return ['x']", "broken", "announces what is no BackendInfo; found str"),
    "halfway": (HOOK + f"yield {INFO}; raise RuntimeError('no more')", "broken", "RuntimeError: no more"),
    "unmarked": (
        HOOK.replace("@hookimpl", "") + "return []",
        "broken",
        "ernie_rt_backends is not marked with @hookimpl",
    ),
    "unknown hook": (
        HOOK + "return []\n@hookimpl\ndef ernie_rt_teapots(): pass",
        "broken",
        "unknown hook 'ernie_rt_teapots'",
    ),
    "nothing": ("PLUGIN_API = 2", "ok", None),
    "good": (HOOK + f"return [{INFO}]", "ok", None),
    "a generator": (HOOK + f"yield {INFO}", "ok", None),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_what_becomes_of_a_plugin(name: str) -> None:
    source, status, cause = PLUGINS[name]
    module = ModuleType("extra")
    exec(source, vars(module))
    plugin = announced(module)
    assert (plugin.name, plugin.status) == ("extra", status)
    assert (plugin.cause is None) == (cause is None) and (cause or "") in (plugin.cause or "")
    if name in ("good", "a generator"):
        assert (plugin.backends, plugin.hooks, plugin.api) == ((GOOD,), ("ernie_rt_backends",), 2)


def test_interrupting_a_plugin_interrupts() -> None:
    module = ModuleType("slow")
    exec(HOOK + "raise KeyboardInterrupt", vars(module))
    with pytest.raises(KeyboardInterrupt):
        announced(module)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in ("Chip", "2chip", "a" * 33, "", "a b", None, 1, "chip\n", "auto")),
        *(
            ("target", value)
            for value in ("chip", "chip:", ":Chip", "chip.:Chip", "chip:Chip()", "chip-2:Chip", b"a:b")
        ),
        *(("summary", value) for value in (None, "two\nlines", "\x1b[31mred", 3)),
        *(("conformance", value) for value in ("declared.json", "chip:", "chip:../x.json", "a:b/c.json", None)),
        *((field, value) for field in ("exporter", "verifier") for value in ("export", "a:b()", "a b:c", None)),
        *(("hint", value) for value in (None, "two\nlines", ["pip"])),
        *(("requires", value) for value in ("torch", ["torch"], ("not a requirement!",), (1,), None)),
        *(("dtypes", value) for value in ({}, (), {"cpu": ()}, {"cpu": "float32"}, {"cpu": ("fp32",)})),
        *(("dtypes", value) for value in ({"CPU": ("float32",)}, {1: ("float32",)}, {"cpu": (["float32"],)}, None)),
        *(("dtypes", value) for value in ({"cpu": ("int32",)}, {"cpu:0": ("float32",)})),
    ],
)
def test_each_field_is_checked(field: str, value: object) -> None:
    check(GOOD)
    with pytest.raises(PluginError, match=f"impossible {field}; expected .*; found "):
        check(replace(GOOD, **{field: value}))  # type: ignore[arg-type]


def test_the_docs_have_each_hook_with_its_signature() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    manager = pluggy.PluginManager(hooks.NAMESPACE)
    manager.add_hookspecs(hooks)
    assert 1 <= len(vars(manager.hook)) <= 8
    for name in vars(manager.hook):
        signature = str(inspect.signature(getattr(hooks, name))).replace("'", "")
        assert f"`{name}{signature}`" in docs


def test_no_field_is_left_out() -> None:
    assert set(FIELDS) == set(BackendInfo.__dataclass_fields__)


TOLD = {"api": 2, "hooks": ["ernie_rt_backends"], "backends": [asdict(GOOD)], "seconds": 0.1}
FORGED = {
    "nothing": None,
    "a list": [],
    "no backends": {name: value for name, value in TOLD.items() if name != "backends"},
    "backends that are none": TOLD | {"backends": [7]},
    "a field more": TOLD | {"backends": [asdict(GOOD) | {"more": 1}]},
    "a target": TOLD | {"backends": [asdict(GOOD) | {"target": "os:system('x')"}]},
    "a hint that steers": TOLD | {"backends": [asdict(GOOD) | {"hint": "\x1b]52;c;aGk=\x07"}]},
    "a name": TOLD | {"backends": [asdict(GOOD) | {"name": "../x"}]},
    "an api that is text": TOLD | {"api": "2"},
    "a hook": TOLD | {"hooks": ["\x1b[2J"]},
    "hooks that are none": TOLD | {"hooks": 7},
    "seconds": TOLD | {"seconds": "1"},
}


@pytest.mark.parametrize("name", FORGED)
def test_what_a_child_answers_is_checked_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin runs there, and can have written the answer itself."""
    stranger = Plugin("chip", "chip", distribution="chip-plugin")
    monkeypatch.setattr("ernie_rt.discovery.child.call", lambda *_, **__: (TOLD, ""))
    assert (heard := examine(stranger)).status == "ok" and heard.backends == (GOOD,)
    monkeypatch.setattr("ernie_rt.discovery.child.call", lambda *_, **__: (FORGED[name], ""))
    heard = examine(stranger)
    assert heard.status == "broken" and heard.backends == ()
    assert heard.cause is not None and heard.cause.startswith("announces ") and heard.cause.isprintable()
