"""What a fuzz target is, and which there are."""

from __future__ import annotations

import importlib
import pkgutil
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import targets

Attempt = Callable[[random.Random], None]
"""Makes one input and feeds it to a reader: it returns when that accepts it, or raises the reader's named error.
Anything else is a fault."""


@dataclass(frozen=True)
class Target:
    """A kind of input. One input is told by the target's name and a seed alone."""

    name: str
    modules: tuple[str, ...]
    """Those whose `raise` statements of named errors it should reach."""
    start: Callable[[Path], Attempt]
    """Called in a forked child, once a batch, with a scratch folder in memory that is the batch's own."""
    share: int
    """Inputs of the default suite; the long mode keeps the proportions."""
    excused: Mapping[str, str] = field(default_factory=dict)
    """Checks that its inputs cannot reach, each by words of its `raise` statement, and why."""

    def random(self, seed: int) -> random.Random:
        """What the input of a seed is drawn from."""
        return random.Random(zlib.crc32(self.name.encode()) << 48 | seed)


def known() -> list[str]:
    """The names of all targets."""
    return sorted(module.name for module in pkgutil.iter_modules(targets.__path__))


def named(name: str) -> Target:
    """The target of a name; its module imports what it needs, so that forked children have it."""
    target = importlib.import_module(f"fuzz.targets.{name}").TARGET
    assert isinstance(target, Target) and target.name == name
    return target
