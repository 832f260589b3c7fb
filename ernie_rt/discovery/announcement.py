"""What a plugin says of itself, checked field by field."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, Final

import pluggy
from packaging.requirements import InvalidRequirement, Requirement

from ernie_rt import hooks
from ernie_rt.discovery import child
from ernie_rt.discovery.installed import OWN, Plugin
from ernie_rt.errors import PluginError
from ernie_rt.graph.types import FLOATS
from ernie_rt.hooks import BackendInfo

SECONDS: Final = 10.0
"""How long importing a stranger's plugin may take."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """The answer of a plugin that was imported; of one that speaks another API, its number alone."""

    api: int | None
    hooks: tuple[str, ...] = ()
    backends: tuple[BackendInfo, ...] = ()


def examine(plugin: Plugin) -> Plugin:
    """Import a plugin and hear what it announces: a built-in one here, a stranger's in a child process.

    Whatever goes wrong is told by the status and the cause of what is returned.
    """
    return _guarded(plugin, _examine_here if plugin.built_in else _examine_in_child)


def announced(module: object) -> Plugin:
    """What a module or object that was imported already announces."""
    plugin = Plugin(getattr(module, "__name__", type(module).__name__), "")
    return _guarded(plugin, lambda plugin: _heard(plugin, announce(module, plugin.name), None))


def announce(plugin: object, name: str) -> Announcement:
    """Register a module or object as a plugin and call its hooks; PluginError, or whatever it raises itself."""
    api = getattr(plugin, "PLUGIN_API", None)
    if api != hooks.PLUGIN_API:
        return Announcement(api if isinstance(api, int) else None)
    manager = pluggy.PluginManager(hooks.NAMESPACE)
    manager.add_hookspecs(hooks)
    manager.register(plugin, name)
    manager.check_pending()
    implemented = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ()))
    for hook in vars(manager.hook):
        if hasattr(plugin, hook) and hook not in implemented:
            raise PluginError(f"{hook} is not marked with @hookimpl")
    infos = tuple(info for answer in manager.hook.ernie_rt_backends() for info in answer)
    for info in infos:
        check(info)
    return Announcement(api, implemented, infos)


def tell(name: str, module: str) -> dict[str, object]:
    """An announcement as JSON: what the child answers."""
    heard, seconds = _load(name, module)
    backends = [asdict(replace(info, dtypes=dict(info.dtypes))) for info in heard.backends]
    return {"api": heard.api, "hooks": heard.hooks, "backends": backends, "seconds": seconds}


def check(info: object) -> None:
    """PluginError when a field of a BackendInfo is not what it should be."""
    if not isinstance(info, BackendInfo):
        raise PluginError("announces what is no BackendInfo", found=type(info).__name__)
    for field, (valid, expected) in FIELDS.items():
        value = getattr(info, field)
        if not valid(value):
            raise PluginError(
                f"announces a backend with an impossible {field}", expected=expected, found=f"{value!r:.80}"
            )


def _guarded(plugin: Plugin, listen: Callable[[Plugin], Plugin]) -> Plugin:
    try:
        return listen(plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise SystemExit at import
        return replace(plugin, status="broken", cause=child.one_line(error))


def _examine_here(plugin: Plugin) -> Plugin:
    return _heard(plugin, *_load(plugin.name, plugin.module))


def _examine_in_child(plugin: Plugin) -> Plugin:
    told, noise = child.call(
        "ernie_rt.discovery.announcement:tell", plugin.name, plugin.module, seconds=SECONDS, doing="importing it"
    )
    heard = _heard(plugin, *_read(told))
    return replace(heard, cause=f"prints when it is imported: {noise}") if noise and heard.status == "ok" else heard


def _load(name: str, module: str) -> tuple[Announcement, float]:
    began = time.perf_counter()
    plugin = EntryPoint(name, module, hooks.NAMESPACE).load()
    seconds = time.perf_counter() - began
    return announce(plugin, name), seconds


def _heard(plugin: Plugin, heard: Announcement, seconds: float | None) -> Plugin:
    plugin = replace(plugin, api=heard.api, hooks=heard.hooks, backends=heard.backends, seconds=seconds)
    if heard.api == hooks.PLUGIN_API:
        return replace(plugin, status="ok", fix=None)
    newer = heard.api is not None and heard.api > hooks.PLUGIN_API
    return replace(
        plugin,
        status="other api",
        cause=f"speaks another plugin API; expected PLUGIN_API = {hooks.PLUGIN_API}; found {heard.api}",
        fix=f"pip install --upgrade {OWN if newer else plugin.distribution}"
        + ("" if newer else "; whoever wrote it finds what changed in docs/backends.md"),
    )


def _read(told: Any) -> tuple[Announcement, float]:
    """What the child answers, checked once more: the plugin ran there, and can have written it itself."""
    try:
        backends = tuple(_unpack(fields) for fields in told["backends"])
        api, implemented, seconds = told["api"], tuple(told["hooks"]), told["seconds"]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PluginError("announces something else than plugins do") from None
    for info in backends:
        check(info)
    if (
        not (api is None or type(api) is int)
        or not all(isinstance(hook, str) and hook in vars(hooks) for hook in implemented)
        or not isinstance(seconds, float)
        or not 0 <= seconds <= SECONDS
    ):
        raise PluginError("announces something else than plugins do")
    return Announcement(api, implemented, backends), seconds


def _unpack(fields: dict[str, Any]) -> BackendInfo:
    dtypes = {kind: tuple(dtypes) for kind, dtypes in fields["dtypes"].items()}
    return BackendInfo(**fields | {"dtypes": dtypes, "requires": tuple(fields["requires"])})


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _are_dtypes(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(_matches("[a-z][a-z0-9_]*")(kind) for kind in value)
        and all(isinstance(d, tuple) and d and all(dtype in FLOATS for dtype in d) for d in value.values())
    )


def alternatives(text: str) -> list[Requirement]:
    """The requirements in `"a>=1 | b>=2"`, of which one is enough."""
    return [Requirement(each) for each in text.split("|")]


def _are_requirements(value: object) -> bool:
    try:
        return isinstance(value, tuple) and all(alternatives(text) for text in value)
    except (InvalidRequirement, TypeError, AttributeError):
        return False


IDENTIFIER: Final = r"[^\W\d]\w*"
TARGET: Final = rf"{IDENTIFIER}(\.{IDENTIFIER})*:{IDENTIFIER}"
FIELDS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "name": (hooks.is_name, hooks.NAME),
    "target": (_matches(TARGET), "package.module:Class"),
    "summary": (_is_line, "a line of text"),
    "dtypes": (_are_dtypes, f"a tuple of {', '.join(FLOATS)} for each kind of device"),
    "requires": (_are_requirements, 'a tuple of requirements such as "torch>=2.8"'),
    "hint": (_is_line, "a line of text"),
    "conformance": (_matches(rf"({IDENTIFIER}(\.{IDENTIFIER})*:[\w.-]+\.json)?"), "package:file.json, or nothing"),
    "exporter": (_matches(f"({TARGET})?"), "package.module:function, or nothing"),
    "verifier": (_matches(f"({TARGET})?"), "package.module:function, or nothing"),
    "planner": (_matches(f"({TARGET})?"), "package.module:Class, or nothing"),
}
"""What each field of a BackendInfo must be."""
