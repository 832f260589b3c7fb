"""A source of weights that ernie-rt does not know, and how to tell its folders: all of it, in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rt.files import Progress
from ernie_rt.graph.types import Plain, Weight, dtype_of
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.weights.opening import SourceKind
from ernie_rt.weights.source import computed

FILE = "model.npz"


class NpzSource:
    """The weights of a graph by its own names, in an archive of NumPy's."""

    def __init__(self, folder: Path, config: ModelConfig, *, reread: bool) -> None:
        self._file = folder / FILE
        with np.load(self._file) as arrays:
            self._arrays = dict(arrays)
        self.notes = ("an archive",)
        self.unused = [(name, "a note") for name in self._arrays if name.startswith("note.")]
        self.storages = {
            name: Plain(dtype_of(array.dtype.name))
            for name, array in self._arrays.items()
            if not name.startswith("note.")
        }

    def is_still(self, fingerprint: str) -> bool:
        return self.fingerprint() == fingerprint

    def fingerprint(self, progress: Progress | None = None) -> str:
        return hashlib.sha256(self._file.read_bytes()).hexdigest()

    def fill(self, weight: Weight, part: str, out: np.ndarray[Any, Any], index: tuple[int, ...] = ()) -> None:
        if not computed(weight, part, out, index):
            out[...] = self._arrays[weight.name][index]

    def close(self) -> None:
        pass


NPZ = SourceKind("an archive of NumPy's", lambda folder: (folder / FILE).is_file(), NpzSource)
