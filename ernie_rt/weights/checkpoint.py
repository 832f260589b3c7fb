"""A folder of safetensors files as one collection of tensors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np

from ernie_rt import files
from ernie_rt.display import listed
from ernie_rt.errors import CheckpointError, JsonError, ModelNotFoundError, UnsafeCheckpointError, UnsafePathError
from ernie_rt.weights.safetensors import SafetensorsFile, StoredTensor
from ernie_rt.weights.strangers import adapter_beside, stranger_folder

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
INDEX_LIMIT: Final = 4 * files.MIB
"""The index of the largest ERNIE takes 1 MB."""
MAX_SHARDS: Final = 512
SHARD: Final = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
PICKLES: Final = frozenset({".bin", ".pdparams", ".pt", ".pth", ".ckpt", ".pkl"})
TRAINER: Final = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler|rng_state\w*)\.(pt|pth|bin)")
"""Pickles that a trainer leaves beside a model, and that hold none of it."""
VARIANT: Final = re.compile(r"model\.safetensors\.index\.(\w+)\.json")
"""The index that `save_pretrained(variant=…)` writes."""


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says: the shard of each tensor, and the bytes of all."""

    shards: Mapping[str, str]
    total_size: int | None = None


class _Missing(CheckpointError):
    """A shard is not there, which matters when a tensor in it is needed."""


def has_weights(folder: Path) -> bool:
    """Whether there are files that a checkpoint or a quantised model keeps its weights in; UnsafePathError."""
    present = _names(folder)
    return not present.isdisjoint((SINGLE, INDEX)) or bool(numbered_shards(present))


class Checkpoint:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` names.

    Opening reads headers alone, so it costs the same whatever the size of the model. `notes` say in what the index is
    wrong about the shards; what is stored counts.
    """

    def __init__(self, folder: Path, opened: Mapping[str, SafetensorsFile], index: Index | None = None) -> None:
        """The shards of `folder` by name, and their index; CheckpointError for a tensor that might be any of two."""
        self.folder = folder
        self._files = opened
        self._index = index or Index({})
        homes: dict[str, list[str]] = {}
        for shard, file in opened.items():
            for name in file.tensors:
                homes.setdefault(name, []).append(shard)
        chosen = {
            name: shards[0] if len(shards) == 1 else self._index.shards.get(name) for name, shards in homes.items()
        }
        unclear = [name for name, shard in chosen.items() if shard not in homes[name]]
        if unclear:
            raise CheckpointError(
                f"tensors are in several shards, and {INDEX} does not say which counts, {listed(unclear)}",
                where=str(folder),
                hint="Fetch the folder again",
            )
        self._home = {name: opened[shard] for name, shard in chosen.items() if shard is not None}
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(
            {name: file.tensors[name] for name, file in self._home.items()}
        )
        self.notes: tuple[str, ...] = ()
        if index is not None:
            self.notes = tuple(_disagreements(index, homes, self.tensors))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder; the single file wins over an index, as in transformers.

        Raises ModelNotFoundError for no folder, UnsafeCheckpointError for a folder of pickles alone, UnsafePathError,
        FileFormatError, or CheckpointError when there are no weights.
        """
        if not folder.is_dir():
            raise ModelNotFoundError("there is no such folder", where=str(folder))
        present = _names(folder)
        index = _read_index(files.member(folder, INDEX)) if SINGLE not in present and INDEX in present else None
        shards = {SINGLE} if SINGLE in present else numbered_shards(present)
        if index is not None:  # which may have forgotten a shard
            shards = (shards & present) | {*index.shards.values()}
        if index is None and not shards:
            raise _no_weights(folder, present)
        with contextlib.ExitStack() as cleanup:
            opened: dict[str, SafetensorsFile] = {}
            for shard in sorted(shards):
                with contextlib.suppress(_Missing):
                    opened[shard] = SafetensorsFile(files.member(folder, shard, missing=_Missing))
                    cleanup.callback(opened[shard].close)
            if shards and not opened:
                raise _shards_missing(folder, shards)
            if index is None and len(opened) < len(shards):
                raise _shards_missing(folder, shards - opened.keys())
            checkpoint = cls(folder, opened, index)
            cleanup.pop_all()
        remarks = (
            adapter_beside(present),
            f"there is no {INDEX}: all {len(shards)} shards were read" if index is None and len(shards) > 1 else None,
        )
        checkpoint.notes += tuple(remark for remark in remarks if remark is not None)
        return checkpoint

    def check_shards(self, needed: Iterable[str]) -> None:
        """CheckpointError when shards are missing that have, by the index, one of these tensors."""
        missing = {self._index.shards.get(name) for name in needed if name not in self.tensors} - {None, *self._files}
        if missing:
            raise _shards_missing(self.folder, {shard for shard in missing if shard is not None})

    @property
    def names(self) -> list[str]:
        """The names of all tensors, of those too that the index has in shards that are missing."""
        return [*dict.fromkeys((*self.tensors, *self._index.shards))]

    @property
    def files(self) -> dict[str, SafetensorsFile]:
        """The files that were opened, by name."""
        return dict(self._files)

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """A read-only view of the mapped file."""
        return self._home[name].array(name)

    def release(self, name: str) -> None:
        """Let the system drop the file pages of a tensor."""
        self._home[name].release(name)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise UnsafePathError("cannot be read", where=str(folder), found=error.strerror) from error


def _no_weights(folder: Path, present: set[str]) -> CheckpointError | UnsafeCheckpointError:
    variants = sorted(match[1] for name in present if (match := VARIANT.fullmatch(name)))
    others = sorted(name for name in present if name.endswith(".safetensors"))
    pickles = {name for name in present if Path(name).suffix in PICKLES and not TRAINER.fullmatch(name)}
    if pickles:
        return UnsafeCheckpointError(
            "the weights are pickles, which can run code when opened; ernie-rt reads safetensors alone",
            where=str(folder),
            found=listed(pickles),
            hint="Use a repository with .safetensors files, or let whoever wrote this one save it again as safetensors",
        )
    found = stranger_folder(folder)
    hint = "Fetch the whole repository"
    if variants:
        hint = f"They were saved as variant {variants[0]!r:.40}; save them again without one (`save_pretrained`)"
    elif len(others) == 1:
        hint = f"If {others[0]!r:.100} has them all, name it {SINGLE}"
    return CheckpointError(
        "there are no weights" if found is None else f"there are no weights that ernie-rt reads: this is {found.what}",
        where=str(folder),
        expected=f"{SINGLE} or {INDEX}",
        hint=hint if found is None else found.hint,
    )


def numbered_shards(present: set[str]) -> set[str]:
    """The shards of a folder without an index, as their own names count them."""
    counts = {int(match[1]) for name in present if (match := SHARD.fullmatch(name))}
    if len(counts) != 1:
        return set()
    (count,) = counts
    return {f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)} if count <= MAX_SHARDS else set()


def _read_index(path: Path) -> Index:
    index = files.read_json(path, limit=INDEX_LIMIT)
    weight_map = index.get("weight_map")
    values = list(weight_map.values()) if isinstance(weight_map, dict) else []
    strange = [value for value in values if not isinstance(value, str)]
    if not isinstance(weight_map, dict) or strange:
        raise JsonError(
            "weight_map is not an object from tensor names to file names",
            where=str(path),
            found=repr(strange[0] if strange else weight_map)[:80],
        )
    shards = len(set(weight_map.values()))
    if shards > MAX_SHARDS:
        raise JsonError("too many shards", where=str(path), expected=f"at most {MAX_SHARDS}", found=shards)
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(weight_map, int(total) if isinstance(total, int | float) else None)


def _shards_missing(folder: Path, shards: Collection[str]) -> CheckpointError:
    return CheckpointError(
        f"shards are missing, {listed(shards)}", where=str(folder), hint="The download is incomplete; resume it"
    )


def _disagreements(
    index: Index, homes: Mapping[str, Sequence[str]], tensors: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """In what an index is wrong about the tensors, given the shards that have each of them."""
    found = {
        "has tensors that no shard has": [name for name in index.shards if name not in homes],
        "lacks tensors that a shard has": [name for name in homes if name not in index.shards],
        "has tensors in another shard than they are": [
            name for name, shard in index.shards.items() if name in homes and shard not in homes[name]
        ],
        "chooses among tensors that several shards have": [name for name, shards in homes.items() if len(shards) > 1],
    }
    for what, names in found.items():
        if names:
            yield f"{INDEX} {what}, {listed(names)}"
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    if index.total_size not in (None, nbytes):
        yield f"{INDEX} says a total_size of {index.total_size:,}, the tensors have {nbytes:,} bytes"
