"""Plugins of strangers as installed distributions: a module and a dist-info folder each, in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PLUGIN = """
from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl

@hookimpl
def ernie_rt_backends():
    return [BackendInfo("NAME", "NAME_engine:Engine", "made for tests", {"cpu": ("float32",)})]
"""
ENGINE = """
from ernie_rt.contract import SimpleBackend, SimpleExecutable
from ernie_rt.reference.ops import MEANINGS

class Executable(SimpleExecutable):
    pass

class Engine(SimpleBackend):
    functions = MEANINGS

    def compile(self, lowerings, weights, target, limits):
        return Executable(lowerings, weights, limits, self.functions, self.dtype)
"""


def raising(method: str) -> str:
    return f"def {method}(self, *arguments):\n        raise RuntimeError('no {method} today')\n"


@dataclass(frozen=True, slots=True)
class Stranger:
    """A plugin: the source of its module, which may be missing, and of its backend; what becomes of it, and why.

    `needs` are further lines of its distribution's metadata.
    """

    source: str | None
    status: str
    cause: str | None
    engine: str = ENGINE
    entry: str = "NAME = NAME"
    group: str = "ernie_rt"
    needs: str = ""


TWELVE: Mapping[str, Stranger] = {
    "importerror": Stranger("import there_is_no_such_module", "broken", "No module named 'there_is_no_such_module'"),
    "syntaxerror": Stranger("def (", "broken", "SyntaxError: "),
    "leaves": Stranger("import sys; sys.exit(3)", "broken", "SystemExit: 3"),
    "endless": Stranger("import threading; threading.Event().wait()", "broken", "importing it takes longer than "),
    "otherapi": Stranger("PLUGIN_API = 3", "other api", "expected PLUGIN_API = 2; found 3"),
    "attribute": Stranger(PLUGIN, "broken", "has no attribute 'Plugin'", entry="NAME = NAME:Plugin"),
    "double": Stranger(PLUGIN, "duplicate", "another distribution has a plugin of this name"),
    "shadow": Stranger(PLUGIN, "shadows a built-in", "'eager' is a built-in plugin", entry="eager = NAME"),
    "noisy": Stranger("print('{' * 3)" + PLUGIN, "ok", "prints when it is imported: {{{", "print('[[')" + ENGINE),
    "constructor": Stranger(
        PLUGIN, "fails when used", "RuntimeError: no __init__ today", f"{ENGINE}\n    {raising('__init__')}"
    ),
    "submit": Stranger(
        PLUGIN, "fails when used", "RuntimeError: no submit today", ENGINE.replace("pass", raising("submit"))
    ),
    "close": Stranger(
        PLUGIN, "fails when used", "RuntimeError: no close today", ENGINE.replace("pass", raising("close"))
    ),
}
"""Twelve ways in which a plugin can be broken."""

GOOD = Stranger(PLUGIN, "ok", None)


def install(site: Path, name: str, stranger: Stranger, distribution: str = "") -> None:
    """Write a plugin into the folder `site`, as the distribution NAME-plugin 1.5 when it has no other name.

    The module notes its import in the file `imported`, beside it.
    """
    if stranger.source is not None:
        note = f"with open({str(site / 'imported')!r}, 'a') as file: file.write('{name} ')\n"
        # What the source itself prints or does comes after the note; a syntax error leaves none.
        (site / f"{name}.py").write_text(note + stranger.source.replace("NAME", name))
        (site / f"{name}_engine.py").write_text(stranger.engine.replace("NAME", name))
    distribution = distribution or f"{name}-plugin"
    info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n{stranger.needs}")
    (info / "entry_points.txt").write_text(f"[{stranger.group}]\n{stranger.entry.replace('NAME', name)}\n")


def forget(site: Path) -> None:
    """Let a later import of what lies in this folder find what lies there then."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(site)):
            del sys.modules[name]


def install_twelve(site: Path) -> None:
    for name, stranger in TWELVE.items():
        install(site, name, stranger)
    install(site, "double_again", Stranger(PLUGIN, "duplicate", None, entry="double = NAME"))
