"""Which plugins are installed: from metadata alone, nothing imported."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution
from typing import Final, Literal

from packaging.utils import canonicalize_name

from ernie_rt.errors import OptionError
from ernie_rt.hooks import COMMANDS, NAME, NAMESPACE, BackendInfo, is_name

SWITCH: Final = "ERNIE_RT_PLUGINS"
"""The environment variable that says which plugins may be used: `a,b` those alone, `no:a` all others; empty none.

It is for plugins of strangers; of the built-in ones, which are always allowed, it can name some to leave out.
"""

OWN: Final = "ernie-rt"
"""The distribution whose plugins are built in."""

TARGET: Final = re.compile(r"(?P<module>[\w.]+(\s*:\s*[\w.]+)?)\s*(\[(?P<extras>[\w.,\s-]*)\])?")
"""What an entry point leads to, and the extras that this needs."""

Status = Literal[
    "found", "ok", "unmet", "off", "broken", "other api", "duplicate", "shadows a built-in", "fails when used"
]
"""What became of a plugin: `found` is not looked at yet, `unmet` works once its requirements are installed."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin and what is known of it: one that announces backends, or a command.

    `module` is what its entry point leads to ("package.module" or "package.module:object"), `extras` are those of its
    distribution that this needs, `seconds` is what importing it took; `cause` says in one line why it is not `ok`, and
    `fix` is the command that helps.
    """

    name: str
    module: str
    distribution: str | None = None
    version: str | None = None
    built_in: bool = False
    status: Status = "found"
    cause: str | None = None
    fix: str | None = None
    api: int | None = None
    hooks: tuple[str, ...] = ()
    backends: tuple[BackendInfo, ...] = ()
    seconds: float | None = None
    group: str = NAMESPACE
    extras: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "command" if self.group == COMMANDS else "backend"

    @property
    def source(self) -> str:
        """The distribution that it is from, with its version."""
        return " ".join(part for part in (self.distribution, self.version) if part is not None) or "-"


def discover(group: str = NAMESPACE, reserved: Collection[str] = ()) -> tuple[Plugin, ...]:
    """Every plugin of a group that is installed, the built-in ones first, in an order that does not depend on the
    system's.

    Those that metadata alone rule out say so in their status. `reserved` are names that are taken without a plugin.
    """
    found = sorted(_installed(group), key=lambda p: (not p.built_in, p.name, p.distribution or ""))
    reserved = {*reserved, *(plugin.name for plugin in found if plugin.built_in)}
    count = Counter(plugin.name for plugin in found)
    allowed, blocked = _switches()
    return tuple(_judge(plugin, reserved, count, allowed, blocked) for plugin in found)


def switch(text: str) -> None:
    """Add `no:NAME` to the environment variable, for this process and its children; OptionError for anything else."""
    if not (text.startswith("no:") and is_name(text.removeprefix("no:"))):
        raise OptionError("-p can leave a plugin out, and nothing else", expected="no:NAME", found=ascii(text[:40]))
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = text if before is None else f"{before},{text}"


def uninstall(distribution: str | None) -> str | None:
    return None if distribution is None else f"pip uninstall {distribution}"


def _installed(group: str) -> Iterator[Plugin]:
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except UnicodeDecodeError as error:
            text = error.object.decode("latin-1")
        if f"[{group}]" not in text:
            continue
        name, version = _name(distribution), _version(distribution)
        # A distribution that is installed twice counts where Python finds it first.
        if name is not None:
            if canonicalize_name(name) in seen:
                continue
            seen.add(canonicalize_name(name))
        built_in = name is not None and canonicalize_name(name) == OWN
        fix = uninstall(name) or f"delete its folder in {distribution.locate_file('')}"
        if built_in:
            fix = f"pip install --force-reinstall {OWN}"
        try:
            points = [(point.name, point.value) for point in distribution.entry_points.select(group=group)]
        except Exception as error:  # each version of Python stumbles in its own way
            cause = f"its entry_points.txt cannot be read ({type(error).__name__})"
            yield Plugin(name or "?", "", name, version, built_in, "broken", cause, fix, group=group)
            continue
        for point, value in points:
            plugin = Plugin(ascii(point[:40])[1:-1], value, name, version, built_in, fix=fix, group=group)
            target = TARGET.fullmatch(value)
            if name is None:
                plugin = replace(plugin, status="broken", cause="its METADATA cannot be read")
            elif target is None:
                cause = f"its entry point leads to {value[:80]!a}, which is no module"
                plugin = replace(plugin, status="broken", cause=cause)
            else:
                extras = re.findall(r"[\w.-]+", target["extras"] or "")
                plugin = replace(plugin, module=target["module"], extras=tuple(extras))
            yield plugin


def _judge(
    plugin: Plugin, reserved: set[str], count: Counter[str], allowed: set[str] | None, blocked: set[str]
) -> Plugin:
    if plugin.name in blocked or (allowed is not None and plugin.name not in allowed and not plugin.built_in):
        return replace(plugin, status="off", cause=f"switched off by -p or {SWITCH}", fix=None)
    if plugin.built_in or plugin.status != "found":
        return plugin
    if not is_name(plugin.name):
        return replace(plugin, status="broken", cause=f"{plugin.name!r} is no name for a plugin; expected {NAME}")
    if plugin.name in reserved:
        what = "command" if plugin.group == COMMANDS else "plugin"
        return replace(plugin, status="shadows a built-in", cause=f"{plugin.name!r} is a built-in {what}, which stays")
    if count[plugin.name] > 1:
        cause = "another distribution has a plugin of this name; neither is used"
        return replace(plugin, status="duplicate", cause=cause)
    return plugin


def _switches() -> tuple[set[str] | None, set[str]]:
    """The names that are allowed (None: all), and those that are left out."""
    text = os.environ.get(SWITCH)
    if text is None:
        return None, set()
    entries = [entry.strip() for entry in text.split(",")]
    blocked = {entry.removeprefix("no:") for entry in entries if entry.startswith("no:")}
    rest: Sequence[str] = [entry for entry in entries if not entry.startswith("no:")]
    return (set(rest) if rest else None), blocked


def _name(distribution: Distribution) -> str | None:
    try:
        name = distribution.metadata["Name"]
    except Exception:
        return None
    # Commands quote it, so it is nothing but a name.
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) else None


def _version(distribution: Distribution) -> str | None:
    try:
        version = distribution.metadata["Version"]
    except Exception:
        return None
    return version if isinstance(version, str) and re.fullmatch(r"[A-Za-z0-9.+!_-]{1,64}", version) else None
