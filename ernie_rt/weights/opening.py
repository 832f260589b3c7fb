"""Which kinds of folders have weights, how to tell them, and what opens them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ernie_rt.errors import CheckpointError
from ernie_rt.model.config import ModelConfig
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.manifest import MANIFEST
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import CheckpointSource, StoredSource


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of folder: its name, whether a folder is one, and how to open it, which raises what is wrong with it."""

    name: str
    fits: Callable[[Path], bool]
    open: Callable[[Path, ModelConfig], StoredSource]


Sources = tuple[SourceKind, ...]

SOURCES: Final[Sources] = (
    SourceKind("a quantised model", lambda folder: (folder / MANIFEST).exists(), QuantizedSource),
    SourceKind("a checkpoint", Path.is_dir, lambda folder, config: CheckpointSource(Checkpoint.open(folder), config)),
)
"""Those that come along; a checkpoint, which says best what a folder lacks, is the last that is tried."""


def open_weights(folder: Path, config: ModelConfig, sources: Sources = SOURCES) -> StoredSource:
    """The weights of a folder, by the first kind that it is of; CheckpointError when it is of none."""
    for kind in sources:
        if kind.fits(folder):
            return kind.open(folder, config)
    raise CheckpointError("there are no weights", where=str(folder), expected=" or ".join(k.name for k in sources))
