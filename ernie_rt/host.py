"""Find plugins, hear each one behind a guard, and hand out backends."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from types import MappingProxyType

from ernie_rt.contract.planner import Planner
from ernie_rt.contract.protocols import Backend
from ernie_rt.discovery.announcement import SECONDS, announced, examine
from ernie_rt.discovery.installed import Plugin, discover
from ernie_rt.discovery.requirements import lack, overlap, versions
from ernie_rt.display import did_you_mean
from ernie_rt.errors import BackendError, ErnieRtError, OptionError, PluginError
from ernie_rt.hooks import PLUGIN_API, BackendInfo


class PluginHost:
    """The plugins of one process.

    The built-in ones are imported at once. A stranger's is heard in a child process, and only when somebody asks for it
    by name or for all; its backend class is imported here when it is used. One that fails hurts nobody else. `extra`
    are plugin modules or objects, imported already and registered beside those that are installed.
    """

    def __init__(self, *, entry_points: bool = True, extra: Iterable[object] = ()) -> None:
        self._plugins: list[Plugin] = list(discover() if entry_points else ())
        self._backends: dict[str, BackendInfo] = {}
        self._instances: dict[str, Backend] = {}
        self._planners: dict[str, Planner | None] = {}
        for place, plugin in enumerate(self._plugins):
            if plugin.built_in and plugin.status == "found":
                self._admit(place, examine(plugin))
        for module in extra:
            self._plugins.append(announced(module))
            self._admit(len(self._plugins) - 1, self._plugins[-1])

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """The backends of plugins that were heard, by name."""
        return MappingProxyType(self._backends)

    @property
    def failures(self) -> tuple[Plugin, ...]:
        """The plugins that were heard, or judged by their metadata, and are broken."""
        return tuple(p for p in self._plugins if p.status not in ("found", "ok", "unmet", "off"))

    def examine(self) -> tuple[Plugin, ...]:
        """Hear every plugin, several at a time, and return what became of each."""
        places = [place for place, plugin in enumerate(self._plugins) if plugin.status == "found"]
        with ThreadPoolExecutor() as pool:
            heard = pool.map(examine, [self._plugins[place] for place in places])
            for place, plugin in zip(places, heard, strict=True):
                self._admit(place, plugin)
        return tuple(self._plugins)

    def absence(self, name: str) -> str | None:
        """Why `backends` has none of this name, in words that follow "is"; None when nobody knows of one."""
        return next((p.status for p in self._plugins if p.built_in and p.name == name), None)

    def missing(self, name: str) -> str | None:
        """What an announced backend lacks on this machine, by package metadata, or None."""
        return lack(self.info(name))

    def overlap(self, name: str) -> str | None:
        """Which distributions that an announced backend needs are installed over each other, or None."""
        return overlap(self.info(name))

    def versions(self, name: str) -> tuple[str, ...]:
        """Whose work the numbers of an announced backend are: its distribution, and what it requires, with versions."""
        info = self.info(name)
        plugins = [plugin for plugin in self._plugins if info in plugin.backends]
        return (*(f"{plugin.distribution} {plugin.version}" for plugin in plugins), *versions(info))

    def info(self, name: str) -> BackendInfo:
        """The backend of this name.

        OptionError, naming those there are, when there is none; PluginError when its plugin cannot be used.
        """
        if name in self._backends:
            return self._backends[name]
        for place, plugin in enumerate(self._plugins):
            if plugin.name == name and plugin.status == "found":
                self._admit(place, examine(plugin))
        if name in self._backends:
            return self._backends[name]
        unusable = [plugin for plugin in self._plugins if plugin.name == name]
        if unusable:
            raise PluginError(
                f"backend {name!r} cannot be used: {unusable[0].cause}",
                where=", ".join(str(plugin.distribution) for plugin in unusable),
                hint=unusable[0].fix if len(unusable) == 1 else "`ernie-rt plugins` says more",
            )
        known = {*self._backends, *(plugin.name for plugin in self._plugins if plugin.status == "found")}
        raise OptionError(
            f"no backend {name!r}",
            expected=f"one of {', '.join(sorted(known)) or 'none'}",
            hint=f"{did_you_mean(name, known)}`ernie-rt backends` lists them",
        )

    def backend(self, name: str) -> Backend:
        """The backend itself, imported and constructed on first use; BackendError when that fails.

        What it prints meanwhile goes to standard error.
        """
        if name not in self._instances:
            info = self.info(name)
            needs = lack(info)
            if needs is not None:
                raise BackendError(f"backend {name!r} cannot be used: it {needs}", hint=info.hint or None)
            module, _, attribute = info.target.partition(":")
            try:
                with _notice_when_slow(info), redirect_stdout(sys.stderr):
                    self._instances[name] = getattr(importlib.import_module(module), attribute)()
            except (Exception, SystemExit) as error:
                if _interrupted(error):
                    raise KeyboardInterrupt from error
                ours = isinstance(error, ImportError) and (error.name or "").startswith("ernie_rt.")
                raise BackendError(
                    f"backend {name!r} did not load: {type(error).__name__}: {error}",
                    where=info.target,
                    hint=f"It was not written for plugin API {PLUGIN_API}: see `What changed` in docs/backends.md"
                    if ours
                    else info.hint or None,
                ) from error
        return self._instances[name]

    def planner(self, name: str) -> Planner | None:
        """What a backend knows of planning, imported and constructed on first use; None where it brings nothing so.

        BackendError when that fails.
        """
        if name not in self._planners:
            module, _, attribute = self.info(name).planner.partition(":")
            with blame(name), redirect_stdout(sys.stderr):
                self._planners[name] = getattr(importlib.import_module(module), attribute)() if module else None
        return self._planners[name]

    def _admit(self, place: int, plugin: Plugin) -> None:
        """Take up what was heard of a plugin."""
        cause = self._objection(plugin)
        if cause is not None:
            plugin = replace(plugin, status="broken", cause=cause, fix=self._plugins[place].fix)
        elif plugin.status == "ok":
            # Of an installed plugin the backend of its name: another has an entry point of its own, and may be off.
            mine = [info for info in plugin.backends if info.name == plugin.name or not plugin.module]
            self._backends.update((info.name, info) for info in mine)
            for info in mine:
                if (needs := lack(info)) is not None:
                    plugin = replace(plugin, status="unmet", cause=needs, fix=info.hint or None)
        self._plugins[place] = plugin

    def _objection(self, plugin: Plugin) -> str | None:
        names = [info.name for info in plugin.backends]
        # A name leads to its plugin by metadata, so that no other need be imported to find it.
        entered = {p.name for p in self._plugins if (p.module, p.distribution) == (plugin.module, plugin.distribution)}
        for name in names:
            if plugin.module and name not in entered:
                return f"announces backend {name!r}, and has no entry point of that name"
            if names.count(name) > 1 or (not plugin.module and name in self._backends):
                return f"announces backend {name!r}, which exists already"
        return None


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: a module written in C tells of it as an ImportError of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def _notice_when_slow(info: BackendInfo) -> Iterator[None]:
    """Name a backend whose import goes on and on: nothing can stop it from within, but the person who waits."""
    text = f"backend {info.name!r} is still being imported ({info.target}); Ctrl-C stops it"
    timer = threading.Timer(SECONDS, lambda: print(text, file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def blame(backend: str) -> Iterator[None]:
    """Turn whatever a backend raises, other than our own errors, into a BackendError that names it."""
    try:
        yield
    except ErnieRtError:
        raise
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {backend!r} failed: {type(error).__name__}: {error}") from error
