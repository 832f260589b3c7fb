"""All checks, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from typing import Final

from ernie_rt.contract.findings import Finding
from ernie_rt.discovery import child
from ernie_rt.discovery.installed import Plugin
from ernie_rt.discovery.requirements import reinstall
from ernie_rt.doctor import folders, installation, machine, network
from ernie_rt.doctor.backends import try_out
from ernie_rt.doctor.report import Backend, Notes, Report
from ernie_rt.errors import PluginError
from ernie_rt.host import PluginHost

SECONDS: Final = 60.0
"""How long a backend may take on a device."""


def examine(
    only: Sequence[str] = (),
    *,
    seconds: float = SECONDS,
    commands: Iterable[Plugin] = (),
    progress: Callable[[str], None] = lambda doing: None,
) -> Report:
    """Look at this machine and what is installed on it, and run a small model on every backend, or on those named.

    `commands` are the plugins that are commands, examined already; `progress` is told what is looked at. OptionError
    for a backend that there is not, PluginError for one whose plugin cannot be used.
    """
    began, notes, host = time.perf_counter(), Notes(), PluginHost()
    progress("plugins")
    plugins = host.examine()
    for name in only:
        host.info(name)
    progress("packages")
    notes.take("python", installation.python())
    notes.take("packages", installation.packages(host.backends))
    notes.take("plugins", installation.plugins([*plugins, *commands]))
    progress("this machine")
    notes.take("processor", machine.processor())
    notes.take("threads", machine.threads())
    notes.take("memory", machine.room())
    notes.take("memory", machine.huge_pages())
    notes.take("folders", folders.folders())
    notes.take("disk", folders.disk())
    notes.take("network", network.network())
    progress("the tokenizer")
    notes.take("tokenizer", _tokenizer(seconds))
    # A plugin that is broken may announce what another one is.
    makers = {info.name: plugin for plugin in plugins if plugin.status in ("ok", "unmet") for info in plugin.backends}
    wanted = [name for name in host.backends if name in only or not only]
    backends: list[Backend] = []
    with ThreadPoolExecutor(max(2, (os.cpu_count() or 1) // 4)) as pool:
        told = pool.map(lambda name: try_out(makers[name], host.backends[name], seconds), wanted)
        progress(f"{', '.join(wanted)}")
        for backend, findings in told:
            backends.append(backend)
            notes.take(backend.name, findings)
    return notes.report(backends, time.perf_counter() - began)


def _tokenizer(seconds: float) -> Iterator[Finding]:
    """Whether the demo model's tokenizer gives back what it is given, tried in a child process."""
    try:
        wrong, _ = child.call("ernie_rt.doctor.text:run", seconds=seconds, doing="reading and writing texts")
    except PluginError as error:
        wrong = [error.what]
    for seen in wrong:
        command = reinstall(distribution("sentencepiece"))
        yield Finding("broken", seen, "models are given other tokens than those that they know", command)
