"""What a shell offers for the names in a command: each function is given what was typed of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ernie_rt.errors import ErnieRtError


def models(incomplete: str) -> list[str]:
    """Known names, and folders."""
    from ernie_rt.modeling.families import FAMILIES
    from ernie_rt.weights.hub import DEMOS

    names = [*DEMOS, *(family.name for family in FAMILIES)]
    return [name for name in [*names, *_folders(incomplete)] if name.startswith(incomplete)]


def backends(incomplete: str) -> list[str]:
    """Backends that are installed, by metadata alone: no plugin is imported."""
    from ernie_rt.discovery.installed import discover

    return [name for name in ["auto", *(plugin.name for plugin in discover())] if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    """Kinds of devices that this machine seems to have."""
    from ernie_rt.choice import accelerators

    return [name for name in ("auto", "cpu", *accelerators()) if name.startswith(incomplete)]


def dtypes(incomplete: str) -> list[str]:
    from ernie_rt.graph.types import FLOATS

    return [name for name in ("auto", *FLOATS) if name.startswith(incomplete)]


def levels(incomplete: str) -> list[str]:
    """Levels of the conformance suite."""
    return [name for name in ("L0", "L1", "L2", "L3", "L4", "L5") if name.startswith(incomplete.upper())]


def storages(incomplete: str) -> list[str]:
    """Ways to store weights, as the conformance suite spells them."""
    known = ["plain", *(f"int{bits}{tiled}" for bits in (4, 8) for tiled in ("", "/64", "/tiled"))]
    return [name for name in known if name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    """Built-in backends with a format of their own."""
    from ernie_rt.host import PluginHost

    found = PluginHost().backends
    return [name for name, info in found.items() if info.exporter and name.startswith(incomplete)]


def conversations(incomplete: str) -> list[str]:
    """Conversations that are kept."""
    from ernie_rt.cli.store import Store
    from ernie_rt.home import user_state

    try:
        return [name for name in Store(user_state() / "chat").names() if name.startswith(incomplete)]
    except ErnieRtError:  # no home
        return []


def files(incomplete: str) -> list[str]:
    """Files, and the folders on the way to them."""
    return [path for path in _paths(incomplete) if path.startswith(incomplete)]


def _folders(incomplete: str) -> Iterator[str]:
    return (path for path in _paths(incomplete) if path.endswith("/"))


def _paths(incomplete: str) -> Iterator[str]:
    parent = incomplete.rpartition("/")[0]
    here = Path(parent or ("/" if incomplete.startswith("/") else "."))
    with suppress(OSError):
        for path in sorted(here.iterdir()):
            if not path.name.startswith("."):
                yield f"{incomplete[: incomplete.rfind('/') + 1]}{path.name}{'/' * path.is_dir()}"
