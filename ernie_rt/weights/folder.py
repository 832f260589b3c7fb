"""Write a quantised folder, file by file.

It grows beside its place, with a manifest of the files that are whole; a run that was interrupted goes on where it
stopped when it is asked for the same. The bytes are the same either way.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from ernie_rt import files, writing
from ernie_rt.errors import CheckpointError, WriteError
from ernie_rt.files import Progress
from ernie_rt.graph.json import Storages
from ernie_rt.graph.types import Weight
from ernie_rt.weights.finite import all_finite
from ernie_rt.weights.hub import FILES
from ernie_rt.weights.integrity import BESIDE_LIMIT, digest_of, shared_with
from ernie_rt.weights.manifest import (
    MANIFEST,
    STORAGES,
    Manifest,
    Shard,
    file_bytes,
    header_of,
    padding,
    parts_of,
    read_manifest,
    shard_weights,
)
from ernie_rt.weights.source import Array

PROGRESS: Final = "ernie_rt.partial.json"
"""The manifest of what is whole, while a folder grows."""

BESIDE: Final = tuple(pattern for pattern in FILES if "safetensors" not in pattern and pattern != MANIFEST)
"""What else of a model's folder is taken along."""

OTHER: Final = "No answer comes of such a model. If another dtype was asked for, keep its own"
LESS: Final = "Choose another disk, fewer bits, or larger blocks"

Put = Callable[[Array], None]
Produce = Callable[[Weight, Put], float | None]
"""Puts the parts of a weight, in their order, and returns the relative rms error; None where nothing was rounded."""
Finish = Callable[[Path, Manifest], None]
"""Adds to the folder, whose weights are written, what else belongs into it."""


@dataclass(frozen=True, slots=True)
class Addition:
    """What a format adds to a folder: files of these `names`. Those that `beside` writes have a digest in the manifest,
    those of `seal` come after it, and may speak of it."""

    names: tuple[str, ...]
    beside: Finish
    seal: Finish


def write_quantized(
    out: Path,
    beside: Path | None,
    weights: Sequence[Weight],
    plan: Mapping[str, object],
    produce: Produce,
    progress: Progress | None = None,
    check: Finish | None = None,
    model: str | None = None,
    links: bool = False,
    added: Addition | None = None,
) -> Manifest:
    """Write the folder `out`: the weights as their storages say, what lies in the folder `beside`, what is `added`,
    and the manifest, which calls it a `model` of that name. `check` is asked when all of it is there. Links that lead
    out of `beside` are followed when `links` says so: for a folder that nobody else is given.

    Raises UnsafePathError for such a link, CheckpointError for numbers that are none, and WriteError when `out` exists,
    `out.partial` is of another plan or not ours alone, or the disk has too little room.
    """
    origin = {"version": version("ernie-rt")} | ({} if model is None else {"model": model})
    taken = [] if beside is None else _beside(beside, links)
    groups = shard_weights(weights)
    sizes = {name: file_bytes(group) for name, group in groups.items()}
    with writing.build_folder(out) as folder:
        begun = _begun(folder, plan, {**STORAGES, **{w.storage.kind: type(w.storage) for w in weights}})
        _clear(folder, {*groups, PROGRESS}, () if added is None else added.names)
        planned = {name: {weight.name: weight.storage for weight in group} for name, group in groups.items()}
        shards = {
            name: shard
            for name, shard in begun.items()
            if planned.get(name) == shard.storages and _whole(folder / name, shard)
        }
        writing.check_room(folder, sum(sizes[name] for name in groups if name not in shards), out, LESS)
        done = 0
        for name, group in groups.items():
            if name not in shards:
                Manifest(plan, shards, origin).write(folder / PROGRESS)
                shards[name] = _Writer(group, produce, done, sum(sizes.values()), progress).write(folder / name)
            done += sizes[name]
        manifest = Manifest(plan, {name: shards[name] for name in groups}, origin)
        manifest.write(folder / PROGRESS)
        _take_along(taken, folder)
        if added is not None:
            added.beside(folder, manifest)
        names = sorted(path.name for path in folder.iterdir() if path.name not in {*groups, PROGRESS})
        manifest = replace(manifest, beside={name: digest_of(folder / name) for name in names})
        manifest.write(folder / PROGRESS)
        if added is not None:
            added.seal(folder, manifest)
        if check is not None:
            check(folder, manifest)
        (folder / PROGRESS).replace(folder / MANIFEST)
    return manifest


def _begun(folder: Path, plan: Mapping[str, object], storages: Storages) -> dict[str, Shard]:
    """The files that an earlier run by the same plan has written; WriteError where something else lies there, or what
    lies there is not ours alone to write."""
    entries = list(folder.iterdir())
    if not entries:
        return {}
    for path in (folder, *entries):
        if (found := shared_with(path)) and not path.is_symlink():  # links are not followed, and removed
            raise WriteError(
                "an interrupted run cannot be trusted that others can write to",
                where=str(path),
                found=found,
                hint="Remove this folder, and begin again",
            )
    for name in (PROGRESS, MANIFEST):
        if not (folder / name).exists():
            continue
        begun = read_manifest(files.member(folder, name, own=True), storages)
        if begun.plan != plan:
            raise _of_another(folder, plan, begun.plan)
        (folder / name).replace(folder / PROGRESS)
        return dict(begun.shards)
    raise WriteError("this folder is in the way", where=str(folder), hint="Choose another name, or remove it")


def _of_another(folder: Path, plan: Mapping[str, object], begun: Mapping[str, object]) -> WriteError:
    """What a run that was interrupted was about, where it was not about this."""
    others = [name for name in {**plan, **begun} if plan.get(name) != begun.get(name)]
    whose = {"source": "of another model", "algorithm": "by another version of ernie-rt"}
    what = next((words for name, words in whose.items() if name in others), "with other options")
    options = [name for name in others if name not in whose]
    spelt = {"True": "on", "False": "off", "None": "not given"}

    def words(plan: Mapping[str, object]) -> str | None:
        return (
            ", ".join(f"{name.replace('_', '-')} {spelt.get(str(plan.get(name)), plan.get(name))}" for name in options)
            or None
        )

    return WriteError(
        f"a run {what} was interrupted here",
        where=str(folder),
        expected=words(plan),
        found=words(begun),
        hint="Give what that one was given to finish it, or remove this folder",
    )


def _clear(folder: Path, kept: set[str], added: tuple[str, ...]) -> None:
    """Remove what an earlier run has written beside the weights, to be written anew; WriteError for anything else."""
    for path in sorted(folder.iterdir()):
        if path.name in kept and path.is_file() and not path.is_symlink():
            continue
        ours = any(fnmatch(path.name, name) for name in (*kept, *BESIDE, *added))
        if not ours or stat.S_ISDIR(path.lstat().st_mode):
            raise WriteError(
                "this does not belong to the run that was interrupted here",
                where=str(path),
                hint="Move it away, or remove the folder and begin again",
            )
        path.unlink()


def _whole(path: Path, shard: Shard) -> bool:
    """Whether a file is the one that was written."""
    return path.is_file() and path.stat().st_size == shard.nbytes and digest_of(path) == shard.sha256


class _Writer:
    """Writes one file of weights; `before` and `total` are bytes of all files."""

    def __init__(
        self, weights: Sequence[Weight], produce: Produce, before: int, total: int, progress: Progress | None
    ) -> None:
        self._weights = weights
        self._produce = produce
        self._before = before
        self._total = total
        self._progress = progress
        self._digest = hashlib.sha256()
        self._written = 0

    def write(self, path: Path) -> Shard:
        errors: dict[str, float] = {}
        with writing.write_atomic(path) as self._file:
            self._write(header_of(self._weights))
            for weight in self._weights:
                self._weight = weight
                self._lengths = [type.nbytes() for type in parts_of([weight]).values()]
                error = self._produce(weight, self._put)
                assert not self._lengths, f"{weight.name} is not whole"
                if error is not None:
                    errors[weight.name] = error
        storages = {weight.name: weight.storage for weight in self._weights}
        return Shard(self._written, self._digest.hexdigest(), storages, errors)

    def _put(self, array: Array) -> None:
        """The next bytes of the weight; a part that they end is padded. CheckpointError for what is no number."""
        array = np.ascontiguousarray(array).reshape(-1)
        if not all_finite(array):
            raise CheckpointError(
                f"numbers that are NaN or infinite, or too large for {array.dtype}", where=self._weight.name, hint=OTHER
            )
        self._write(array.view(np.uint8).data)
        self._lengths[0] -= array.nbytes
        if self._lengths[0] == 0:
            del self._lengths[0]
            self._write(bytes(padding(self._written)))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._written += len(data)
        if self._progress is not None:
            self._progress(self._before + self._written, self._total)


def _beside(source: Path, links: bool) -> list[Path]:
    """What is taken along of a model's folder: config, tokenizer, templates and defaults."""
    names = sorted(entry.name for entry in source.iterdir())
    found = [name for name in names if any(fnmatch(name, pattern) for pattern in BESIDE)]
    return [files.member(source, name, own=not links) for name in found]


def _take_along(paths: Sequence[Path], folder: Path) -> None:
    for path in paths:
        data = files.read_bytes(path, BESIDE_LIMIT)
        with writing.write_atomic(folder / path.name) as file:
            file.write(data)
