"""The hooks that a plugin may implement, and the light data that they hand over.

A plugin is a module behind an entry point of group `ernie_rt`. It sets `PLUGIN_API` to the number below and implements
hooks, marked with `hookimpl`. It must import nothing heavy: a backend class is named by a string and imported when
somebody uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pluggy

from ernie_rt.graph.types import DType

NAMESPACE: Final = "ernie_rt"
COMMANDS: Final = "ernie_rt.commands"
"""The group of entry points that lead to commands of the command line, a function or a `typer.Typer` each."""

PLUGIN_API: Final = 2
"""Raised only when an older backend would break; a plugin writes down the number that it was written for.

docs/backends.md says, under `What changed`, what each number brought.
"""

NAME: Final = "[a-z][a-z0-9_-]{0,31}"
"""What a plugin, and with it a backend or a command, may be called; "auto" alone means something else."""

hookspec = pluggy.HookspecMarker(NAMESPACE)
hookimpl = pluggy.HookimplMarker(NAMESPACE)


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """A backend as data: enough to list it, to say what it lacks, and to find its class.

    `name` is that of the plugin's entry point; a plugin of several backends has an entry point for each. `target`
    is "package.module:Class"; `requires` are requirements such as "torch>=2.8", checked by metadata alone, and
    `hint` is the command that brings them; `dtypes` gives, by kind of device ("cpu", "cuda", "mps"), the activation
    dtypes that it computes in, its preferred one first. `conformance` is "package:file.json", what it declares to the
    conformance suite (`ernie_rt.conformance.declared`). `exporter` is "package.module:function", an
    `ernie_rt.export.Exporter` to the backend's own format, and `verifier` likewise an `ernie_rt.export.Verifier` of it.
    `planner` is "package.module:Class", an `ernie_rt.contract.Planner` in a module that imports nothing heavy.

    A requirement such as "a>=1 | b>=2" is met by either.
    """

    name: str
    target: str
    summary: str
    dtypes: Mapping[str, tuple[DType, ...]]
    requires: tuple[str, ...] = ()
    hint: str = ""
    conformance: str = ""
    exporter: str = ""
    verifier: str = ""
    planner: str = ""


def is_name(value: object) -> bool:
    """Whether a plugin or a backend may be called so."""
    return isinstance(value, str) and re.fullmatch(NAME, value) is not None and value != "auto"


@hookspec
def ernie_rt_backends() -> Iterable[BackendInfo]:  # type: ignore[empty-body]
    """Announce backends.

    Of a plugin that is built in, or handed over as a module, it is called when a host is made; of any other in a child
    process, and only when the plugin's name, or every plugin, is asked for.

    :return: one BackendInfo for each backend of the plugin.
    """
