"""What is installed: Python, the packages that ernie-rt and its backends need, plugins."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distribution, metadata
from importlib.util import find_spec
from typing import Final

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ernie_rt import __version__
from ernie_rt.contract.findings import Finding
from ernie_rt.discovery.installed import OWN, SWITCH, Plugin
from ernie_rt.discovery.requirements import (
    damaged,
    needed,
    outdated,
    overwritten,
    reinstall,
    required,
    requirements,
)
from ernie_rt.display import listed
from ernie_rt.doctor.report import Fact
from ernie_rt.hooks import BackendInfo

UNHEARD: Final = ("ok", "found", "unmet")
"""Of a plugin that has one of these there is nothing to be said here."""


def python() -> Iterator[Fact | Finding]:
    """Whether this Python is one that ernie-rt is made for, and can install anything."""
    version = platform.python_version()
    yield Fact("versions", f"ernie-rt {__version__}, Python {version} on {platform.system()} {platform.machine()}")
    wanted = metadata(OWN)["Requires-Python"] or ""
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        advice = f"Make an environment of Python {wanted}, and install ernie-rt there"
        yield Finding("broken", f"Python {version}, where ernie-rt needs {wanted}", "anything may fail", advice=advice)
    if find_spec("pip") is None:
        costs = "the commands below that begin with pip cannot be run as they are"
        yield Finding("remark", "this environment has no pip", costs, "python -m ensurepip")


def packages(backends: Mapping[str, BackendInfo]) -> Iterator[Finding]:
    """Whether what ernie-rt and its backends need is there, in a version that fits, whole, and once."""
    old = outdated(OWN)
    if old:
        command = f"pip install {' '.join(map(shlex.quote, old))}"
        yield Finding("broken", f"{', '.join(old)}: not installed, or in another version", "anything may fail", command)
    there = [*needed(OWN), *(found for info in backends.values() for found in required(info))]
    whole = {canonicalize_name(found.name): found for found in there}
    for name, info in backends.items():
        fault = overwritten(info)
        if fault is not None:
            for requirement in requirements(info):
                whole.pop(canonicalize_name(requirement.name), None)  # whose files are not its own
            costs = f"{name} may fail, or run on another build than you think"
            advice = "Another one of them can be installed in its place, not beside it"
            yield Finding("broken", fault[0], costs, fault[1], advice)
    for found in whole.values():
        files = damaged(found)
        if files:
            seen = f"{found.name} {found.version} is damaged: files that are gone or have another size, {listed(files)}"
            yield Finding("broken", seen, "what uses them fails, or computes something else", reinstall(found))


def plugins(found: Iterable[Plugin]) -> Iterator[Finding]:
    """What keeps plugins from being used."""
    for plugin in found:
        if plugin.cause is None or plugin.status in UNHEARD:
            if plugin.cause is not None and plugin.status == "ok":
                yield Finding("remark", f"{plugin.name}: {plugin.cause}", "answers on standard output may be spoilt")
            continue
        seen = f"{plugin.name} ({plugin.source}) is {plugin.status}: {plugin.cause}"
        costs = f"the {plugin.kind} {plugin.name} cannot be used; all others can"
        if plugin.status == "off":
            yield Finding("remark", seen, costs, f"unset {SWITCH}")
            continue
        fix = reinstall(distribution(OWN)) if plugin.built_in else plugin.fix or ""
        is_command = fix.startswith("pip ") and ";" not in fix
        yield Finding("broken", seen, costs, fix if is_command else "", "" if is_command else fix)
