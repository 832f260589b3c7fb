"""Render the distribution of a new backend."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from ernie_rt.choice import AUTOMATIC
from ernie_rt.discovery.installed import discover
from ernie_rt.errors import OptionError
from ernie_rt.hooks import is_name

WORD: Final = "yourchip"
"""The backend's name in the skeleton, which is a working distribution of its own."""


def render(name: str) -> tuple[str, dict[str, bytes]]:
    """The name of the distribution of a backend called `name`, and its files.

    OptionError for a name that no backend can have, or that another package or plugin has here.
    """
    if not is_name(name) or re.search("[-_]{2}|[-_]$", name):
        raise OptionError(
            "not a name for a backend",
            expected="at most 32 of a-z, 0-9, - and _: a letter first, a letter or digit last, and not auto",
            found=ascii(name[:40]),
        )
    module, distribution = f"ernie_rt_{name.replace('-', '_')}", f"ernie-rt-{name.replace('_', '-')}"
    taken = name in AUTOMATIC or any(plugin.name == name for plugin in discover())
    if taken or importlib.util.find_spec(module) is not None:
        raise OptionError(
            f"the name {name!r} is taken", found=f"a plugin {name}" if taken else f"a package {module}",
            hint="`ernie-rt plugins` lists those that are installed",
        )  # fmt: skip

    def fill(text: str) -> str:
        return text.replace(f"ernie_rt_{WORD}", module).replace(f"ernie-rt-{WORD}", distribution).replace(WORD, name)

    root = files("ernie_rt_template") / "skeleton"
    return distribution, {fill(path): fill(text).encode() for path, text in sorted(_texts(root))}


def _texts(folder: Traversable, path: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _texts(entry, f"{path}{entry.name}/")
        elif entry.is_file():
            yield f"{path}{entry.name}", entry.read_text("utf-8")
