"""The weights of a quantised folder, as they are stored or as numbers."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ernie_rt import files
from ernie_rt.display import listed
from ernie_rt.errors import CheckpointError, GraphError
from ernie_rt.files import Progress
from ernie_rt.graph.types import DTYPES, Storage, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import HEAD
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.weights.digests import Digests, are_still, combined
from ernie_rt.weights.finite import all_finite
from ernie_rt.weights.integrity import BESIDE_LIMIT, digest_of
from ernie_rt.weights.manifest import (
    MANIFEST,
    PADDING,
    Manifest,
    Shard,
    parts_of,
    read_manifest,
    shard_weights,
)
from ernie_rt.weights.names import FOR_PICTURES
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.source import HEAD_APART, Array, Place, computed, copy, pieces
from ernie_rt.weights.stamps import Stamps

READ: Final = re.compile(
    r"(config|generation_config|special_tokens_map|added_tokens)\.json|(tokenizer|chat_template).*", re.DOTALL
)
"""What is read of a folder beside the weights; what other programs read, `verify` alone checks."""

CHUNK: Final = 1 << 17
"""Numbers made at once."""


class QuantizedSource:
    """The weights of a quantised folder. Opening it checks all names, shapes and sizes, and the digests of what lies
    beside the weights; that of a file of weights is checked when it is first read: remembered since it was last hashed,
    or hashed ahead by several threads.

    A weight is filled part by part as it is stored, or, where the graph does not say it packed, with the numbers.
    """

    def __init__(
        self, folder: Path, config: ModelConfig, manifest: Manifest | None = None, *, reread: bool = False
    ) -> None:
        """`manifest` is for a folder that has none yet; to `reread` is to believe no remembered digest.

        Raises JsonError, CheckpointError, FileFormatError or UnsafePathError.
        """
        self.manifest = manifest or read_manifest(files.member(folder, MANIFEST))
        self.storages = self.manifest.storages
        self.notes = (HEAD_APART,) if config.tie_word_embeddings and HEAD in self.storages else ()
        self._verified: set[str] = set()
        self._homes: dict[str, str] = {}
        self._files: dict[str, SafetensorsFile] = {}
        weights = _checked(folder, replace(config, text_only=False), self.manifest.storages)
        self._weights = {weight.name: weight for group in weights.values() for weight in group}
        wanted = weights_of(build_graphs(config, storages=self.storages))
        self.unused = tuple((name, FOR_PICTURES) for name in self._weights if name not in wanted)
        with contextlib.ExitStack() as cleanup:
            for name, group in weights.items():
                self._files[name] = _open(folder, name, self.manifest.shards.get(name), group)
                cleanup.callback(self._files[name].close)
                self._homes.update((weight.name, name) for weight in group)
            _check_beside(folder, self.manifest)
            cleanup.pop_all()
        self._wanted = {name: self.manifest.shards[name].sha256 for name in self._files}
        self._stamps = None if reread else Stamps.of_user()
        self._digests = Digests(self._files, self._stamps, self._wanted)

    @property
    def weights(self) -> list[Weight]:
        return list(self._weights.values())

    def fingerprint(self, progress: Progress | None = None) -> str:
        """Of the digests that the manifest says, which hold of whatever is read."""
        return combined(self._wanted.values())

    def is_still(self, fingerprint: str) -> bool:
        return are_still(self._files, fingerprint, self._stamps)

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if computed(weight, part, out, index):
            return
        stored = self._weights.get(weight.name)
        if stored is None or stored.type.dims != weight.type.dims:
            raise GraphError(
                f"the folder has no weight {weight.name!r} of this shape",
                expected=weight.type,
                found=None if stored is None else stored.type,
            )
        if weight.storage.packed and weight.storage != stored.storage:
            raise GraphError(
                f"weight {weight.name!r} is stored in another way", expected=weight.storage, found=stored.storage
            )
        if stored.storage.packed and not weight.storage.packed:
            self._fill_numbers(stored, out, index)
        else:
            copy(self.array(weight.name, part)[index], out)
        self.release(weight.name)

    def place(self, weight: Weight, part: str) -> Place | None:
        """Where a part lies in the folder, in a file whose digest holds; None when it is stored in another way."""
        stored = self._weights.get(weight.name)
        if stored is None or (stored.storage, stored.type.dims) != (weight.storage, weight.type.dims):
            return None
        file = self._verified_file(weight.name)
        tensor = file.tensors[f"{weight.name}.{part}"]
        return Place(file.path, tensor.offset, tensor.nbytes)

    def array(self, name: str, part: str) -> Array:
        """A read-only view of a part in the mapped file, whose digest holds; CheckpointError when it does not."""
        return self._verified_file(name).array(f"{name}.{part}")

    def check_finite(self) -> None:
        """Read all numbers, scales among them, of files whose digests are known to hold; CheckpointError for a weight
        with NaN or infinity."""
        for name, weight in self._weights.items():
            file = self._files[self._homes[name]]
            if not all(all_finite(file.array(f"{name}.{part}")) for part in weight.parts):
                raise CheckpointError(
                    "numbers that are NaN or infinite",
                    where=f"{file.path}, {name}",
                    hint="Fetch the folder again, or quantise the model again",
                )
            self.release(name)

    def release(self, name: str) -> None:
        """Let the system drop the file pages of a weight."""
        for part in self._weights[name].parts:
            self._files[self._homes[name]].release(f"{name}.{part}")

    def rows(self, name: str, start: int, stop: int) -> Mapping[str, Array]:
        """The parts, row by row, of rows of a weight whose axes up to the rows are one."""
        weight = self._weights[name]
        parts = {part: self.array(name, part) for part in weight.parts}
        return weight.storage.rows(parts, len(weight.row), start, stop)

    def close(self) -> None:
        self._digests.close()
        for file in self._files.values():
            file.close()

    def _fill_numbers(self, weight: Weight, out: Array, index: tuple[int, ...]) -> None:
        def numbers(start: int, stop: int) -> Any:
            return weight.storage.dequantize(self.rows(weight.name, start, stop))

        shape, row = weight.type.shape(), math.prod(weight.row)
        axes = shape[: len(shape) - len(weight.row)]
        first = sum(i * math.prod(axes[axis + 1 :]) for axis, i in enumerate(index[: len(axes)]))
        if len(index) > len(axes):
            np.copyto(out, numbers(first, first + 1)[0][index[len(axes) :]], casting="unsafe")
            return
        tile = row * weight.storage.tile
        for piece, begin, count in pieces(out.shape, max(CHUNK // tile, 1) * tile):
            target = out[piece]
            found = numbers(first + begin // row, first + (begin + count) // row)
            np.copyto(target, found.reshape(target.shape), casting="unsafe")

    def _verified_file(self, name: str) -> SafetensorsFile:
        """The file that holds a weight; its digest is checked the first time."""
        home = self._homes[name]
        if home not in self._verified:
            self._verify(home)
            self._verified.add(home)
        return self._files[home]

    def _verify(self, name: str) -> None:
        wanted, found = self._wanted[name], self._digests.of(name)
        if found != wanted:
            raise CheckpointError(
                "the file is not the one that was written: its digest differs",
                where=str(self._files[name].path),
                expected=f"sha256 {wanted}",
                found=found,
                hint="Fetch it again, or quantise the model again",
            )


def _check_beside(folder: Path, manifest: Manifest) -> None:
    """CheckpointError unless what is read beside the weights is what was written there; it is small."""
    for name, wanted in (manifest.beside or {}).items():
        if READ.fullmatch(name) is None:
            continue
        found = digest_of(files.member(folder, name, missing=CheckpointError), limit=BESIDE_LIMIT)
        if found != wanted:
            raise CheckpointError(
                "the file is not the one that was written: its digest differs",
                where=str(folder / name),
                expected=f"sha256 {wanted}",
                found=found,
                hint=f"Fetch it again; or, if you changed it yourself, take its line out of {MANIFEST}",
            )


def _checked(folder: Path, config: ModelConfig, storages: Mapping[str, Storage]) -> dict[str, tuple[Weight, ...]]:
    """The weights of the config's graph by the files that must hold them; CheckpointError unless the manifest fits."""
    weights = weights_of(build_graphs(config, storages=storages))
    known = {name: weight for name, weight in weights.items() if weight.storage.stored}
    troubles = {
        "missing": [name for name in known if name not in storages],
        "left over": [name for name in storages if name not in known],
        "that cannot be stored so": [f"{name}: {weight.problem}" for name, weight in known.items() if weight.problem],
    }
    found = "; ".join(f"weights {what}, {listed(names)}" for what, names in troubles.items() if names)
    if found:
        raise _misfit(folder, f"{MANIFEST} does not fit config.json: {found}")
    return shard_weights([*known.values()])


def _open(folder: Path, name: str, shard: Shard | None, weights: tuple[Weight, ...]) -> SafetensorsFile:
    if shard is None:
        raise _misfit(folder, f"{MANIFEST} has no file {name!r}")
    path = files.member(folder, name, missing=CheckpointError)
    size = path.stat().st_size
    if size != shard.nbytes:
        raise CheckpointError(
            "the file has another size than when it was written",
            where=str(path),
            expected=f"{shard.nbytes} bytes",
            found=size,
            hint="Fetch it again, or quantise the model again",
        )
    file = SafetensorsFile(path)
    found = {n: (t.dtype, t.shape) for n, t in file.tensors.items() if not n.startswith(PADDING)}
    wanted = {n: (DTYPES[type.dtype].stored, type.shape()) for n, type in parts_of(weights).items()}
    if found != wanted:
        file.close()
        raise _misfit(path, f"other tensors than {MANIFEST} says, {listed(dict(found.items() ^ wanted.items()))}")
    return file


def _misfit(where: Path, what: str) -> CheckpointError:
    return CheckpointError(what, where=str(where), hint="Fetch the folder again, or quantise the model again")
