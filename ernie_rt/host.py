"""Find plugins, register them one by one behind a guard, and hand out backends."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import pluggy
from packaging.requirements import Requirement

from ernie_rt import hooks
from ernie_rt.backend.protocols import Backend
from ernie_rt.errors import BackendError, ErnieRtError, OptionError, PluginError
from ernie_rt.hooks import BackendInfo


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that could not be used, and the cause in one line."""

    plugin: str
    cause: str


class PluginHost:
    """The plugins of one process.

    Entry points of group `ernie_rt` are imported one at a time; one that fails is kept in `failures` and hurts nobody
    else. `extra` are plugin modules or objects registered beside them.
    """

    def __init__(self, *, entry_points: bool = True, extra: Iterable[object] = ()) -> None:
        self._manager = pluggy.PluginManager(hooks.NAMESPACE)
        self._manager.add_hookspecs(hooks)
        self._failures: list[PluginFailure] = []
        self._backends: dict[str, BackendInfo] = {}
        self._instances: dict[str, Backend] = {}
        if entry_points:
            for point in importlib.metadata.entry_points(group=hooks.NAMESPACE):
                self._guard(point.name, lambda point=point: self._register(point.load(), point.name))
        for plugin in extra:
            name = getattr(plugin, "__name__", type(plugin).__name__)
            self._guard(name, lambda plugin=plugin, name=name: self._register(plugin, name))

    @property
    def failures(self) -> tuple[PluginFailure, ...]:
        return tuple(self._failures)

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """Every announced backend by name."""
        return MappingProxyType(self._backends)

    def missing(self, name: str) -> str | None:
        """What an announced backend lacks on this machine, by package metadata, or None."""
        info = self.info(name)
        absent = [requirement for requirement in info.requires if not _satisfied(requirement)]
        return None if not absent else f"needs {', '.join(absent)}"

    def info(self, name: str) -> BackendInfo:
        """The announced backend of this name; OptionError, naming those there are, when there is none."""
        if name not in self._backends:
            broken = next((f" (plugin {f.plugin} failed: {f.cause})" for f in self._failures if f.plugin == name), "")
            raise OptionError(
                f"no backend {name!r}{broken}", expected=f"one of {', '.join(sorted(self._backends)) or 'none'}",
                hint="`ernie-rt backends` lists them",
            )  # fmt: skip
        return self._backends[name]

    def backend(self, name: str) -> Backend:
        """The backend itself, imported and constructed on first use; BackendError when that fails."""
        if name not in self._instances:
            info = self.info(name)
            lack = self.missing(name)
            if lack is not None:
                raise BackendError(f"backend {name!r} cannot be used: it {lack}", hint=info.hint or None)
            module, _, attribute = info.target.partition(":")
            try:
                self._instances[name] = getattr(importlib.import_module(module), attribute)()
            except (Exception, SystemExit) as error:
                raise BackendError(
                    f"backend {name!r} did not load: {type(error).__name__}: {error}",
                    where=info.target, hint=info.hint or None,
                ) from error  # fmt: skip
        return self._instances[name]

    def _register(self, plugin: object, name: str) -> None:
        api = getattr(plugin, "PLUGIN_API", None)
        if api != hooks.PLUGIN_API:
            raise PluginError("speaks another plugin API", expected=f"PLUGIN_API = {hooks.PLUGIN_API}", found=api)
        announce = getattr(plugin, "ernie_rt_backends", None)
        announced: dict[str, BackendInfo] = {}
        for info in announce() if announce is not None else ():
            if not isinstance(info, BackendInfo):
                raise PluginError("announces what is no BackendInfo", found=type(info).__name__)
            if info.name in self._backends or info.name in announced:
                raise PluginError(f"announces backend {info.name!r}, which exists already")
            announced[info.name] = info
        self._manager.register(plugin, name)
        self._backends.update(announced)  # all of a plugin's backends, or none

    def _guard(self, name: str, action: object) -> None:
        try:
            assert callable(action)
            action()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise SystemExit at import
            cause = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            self._failures.append(PluginFailure(name, cause))


def _satisfied(text: str) -> bool:
    try:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True  # not needed on this machine
        version = importlib.metadata.version(requirement.name)
        # None is what a package with broken metadata has.
        return version is not None and requirement.specifier.contains(version, prereleases=True)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: an invalid requirement or version
        return False


@contextmanager
def blame(backend: str) -> Iterator[None]:
    """Turn whatever a backend raises, other than our own errors, into a BackendError that names it."""
    try:
        yield
    except ErnieRtError:
        raise
    except Exception as error:
        raise BackendError(f"backend {backend!r} failed: {type(error).__name__}: {error}") from error
