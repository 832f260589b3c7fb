"""Which kinds of folders have weights, how to tell them, and what opens them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ernie_rt.errors import CheckpointError
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import CheckpointSource, StoredSource


class Open(Protocol):
    """What opens a folder of a kind."""

    def __call__(self, folder: Path, config: ModelConfig, /, *, reread: bool) -> StoredSource:
        """The weights in it, their headers checked. Raises what is wrong with them.

        To `reread` is to believe nothing that was remembered of its bytes from earlier: for who writes what it reads
        elsewhere. What remembers nothing has nothing to do for that.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of folder: its name, whether a folder is one, and what opens it."""

    name: str
    fits: Callable[[Path], bool]
    open: Open


def _checkpoint(folder: Path, config: ModelConfig, *, reread: bool) -> CheckpointSource:
    checkpoint = Checkpoint.open(folder)
    try:
        return CheckpointSource(checkpoint, config, reread=reread)
    except BaseException:
        checkpoint.close()
        raise


def _is_quantized(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


Sources = tuple[SourceKind, ...]

SOURCES: Final[Sources] = (
    SourceKind("a quantised model", _is_quantized, QuantizedSource),
    SourceKind("a checkpoint", Path.is_dir, _checkpoint),
)
"""Those that come along; a checkpoint, which says best what a folder lacks, is the last that is tried."""


def open_weights(
    folder: Path, config: ModelConfig, sources: Sources = SOURCES, *, reread: bool = False
) -> StoredSource:
    """The weights of a folder, by the first kind that it is of; CheckpointError when it is of none. See `Open`."""
    for kind in sources:
        if kind.fits(folder):
            return kind.open(folder, config, reread=reread)
    raise CheckpointError("there are no weights", where=str(folder), expected=" or ".join(k.name for k in sources))
