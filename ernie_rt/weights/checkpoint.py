"""A folder of safetensors files as one collection of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np

from ernie_rt import files
from ernie_rt.errors import CheckpointError, JsonError, ModelNotFoundError, UnsafeCheckpointError, UnsafePathError
from ernie_rt.weights.safetensors import SafetensorsFile, StoredTensor

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
INDEX_LIMIT: Final = 4 * files.MIB
"""The index of the largest ERNIE takes 1 MB."""
MAX_SHARDS: Final = 512
PICKLES: Final = frozenset({".bin", ".pdparams", ".pt", ".pth", ".ckpt", ".pkl"})


def listed(names: Collection[str], show: int = 4) -> str:
    """The count and the first few of some names, for an error: `6: 'a', 'b', 'c', 'd', …`."""
    first = ", ".join(repr(name if len(name) <= 100 else f"{name[:99]}…") for name in sorted(names)[:show])
    return f"{len(names)}: {first}{', …' if len(names) > show else ''}"


class Checkpoint:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` names.

    Opening reads headers alone, so it costs the same whatever the size of the model.
    """

    def __init__(self, folder: Path, opened: tuple[SafetensorsFile, ...]) -> None:
        self.folder = folder
        self._files = opened
        self._home = {name: file for file in opened for name in file.tensors}
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(
            {name: file.tensors[name] for name, file in self._home.items()}
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder; the single file wins over an index, as in transformers.

        Raises ModelNotFoundError for no folder, UnsafeCheckpointError for a folder of pickles alone, UnsafePathError,
        FileFormatError, or CheckpointError when shards are missing or disagree with the index.
        """
        if not folder.is_dir():
            raise ModelNotFoundError("there is no such folder", where=str(folder))
        try:
            present = {entry.name for entry in folder.iterdir()}
        except OSError as error:
            raise UnsafePathError("cannot be read", where=str(folder), found=error.strerror) from error
        if SINGLE not in present and INDEX not in present:
            raise _no_weights(folder, present)
        with contextlib.ExitStack() as cleanup:
            shards: dict[str, SafetensorsFile] = {}
            weight_map: dict[str, str] | None = None
            total_size: object = None
            if SINGLE not in present:
                weight_map, total_size = _read_index(files.member(folder, INDEX))
            for shard, path in _find(folder, {SINGLE} if weight_map is None else set(weight_map.values())).items():
                shards[shard] = SafetensorsFile(path)
                cleanup.callback(shards[shard].close)
            if weight_map is not None:
                _check_index(folder, weight_map, total_size, shards)
            cleanup.pop_all()
        return cls(folder, tuple(shards.values()))

    @property
    def files(self) -> dict[str, SafetensorsFile]:
        """The files that were opened, by name."""
        return {file.path.name: file for file in self._files}

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """A read-only view of the mapped file."""
        return self._home[name].array(name)

    def release(self, name: str) -> None:
        """Let the system drop the file pages of a tensor."""
        self._home[name].release(name)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _no_weights(folder: Path, present: set[str]) -> CheckpointError | UnsafeCheckpointError:
    pickles = {name for name in present if Path(name).suffix in PICKLES}
    if pickles:
        return UnsafeCheckpointError(
            "the weights are pickles, which can run code when opened; ernie-rt reads safetensors alone",
            where=str(folder),
            found=listed(pickles),
            hint="Use a repository with .safetensors files, or let whoever wrote this one save it again as safetensors",
        )
    return CheckpointError(
        "there are no weights", where=str(folder), expected=f"{SINGLE} or {INDEX}", hint="Fetch the whole repository"
    )


def _read_index(path: Path) -> tuple[dict[str, str], object]:
    index = files.read_json(path, limit=INDEX_LIMIT)
    weight_map = index.get("weight_map")
    values = list(weight_map.values()) if isinstance(weight_map, dict) else [weight_map]
    strange = [value for value in values if not isinstance(value, str)]
    if not isinstance(weight_map, dict) or strange:
        raise JsonError(
            "weight_map is not an object from tensor names to file names", where=str(path), found=repr(strange[0])[:80]
        )
    shards = len(set(weight_map.values()))
    if shards > MAX_SHARDS:
        raise JsonError("too many shards", where=str(path), expected=f"at most {MAX_SHARDS}", found=shards)
    metadata = index.get("metadata")
    return weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None


def _find(folder: Path, shards: set[str]) -> dict[str, Path]:
    """The path of each shard, or one CheckpointError for all that are missing."""
    found: dict[str, Path] = {}
    missing = []
    for shard in sorted(shards):
        try:
            found[shard] = files.member(folder, shard, missing=CheckpointError)
        except CheckpointError:
            missing.append(shard)
    if missing:
        raise CheckpointError(
            f"shards are missing, {listed(missing)}", where=str(folder), hint="The download is incomplete; resume it"
        )
    return found


def _check_index(
    folder: Path, weight_map: dict[str, str], total_size: object, shards: dict[str, SafetensorsFile]
) -> None:
    """Raise one CheckpointError that says all in which the index and the shards disagree."""
    homes: dict[str, list[str]] = {}
    for shard, file in shards.items():
        for name in file.tensors:
            homes.setdefault(name, []).append(shard)
    troubles = {
        "in several shards": [name for name, where in homes.items() if len(where) > 1],
        "in a shard but not in the index": [name for name in homes if name not in weight_map],
        "in the index but not in their shard": [n for n, shard in weight_map.items() if shard not in homes.get(n, [])],
    }
    parts = [f"tensors {what}, {listed(names)}" for what, names in troubles.items() if names]
    found_size = sum(tensor.nbytes for file in shards.values() for tensor in file.tensors.values())
    if total_size is not None and total_size != found_size:
        parts.append(f"total_size is {total_size!r:.40}, the tensors have {found_size} bytes")
    if parts:
        raise CheckpointError(
            f"the shards and {INDEX} disagree: {'; '.join(parts)}",
            where=str(folder),
            hint="They come from different versions, or a download went wrong; fetch the folder again",
        )
