"""Quantised models kept on disk, so that a checkpoint is quantised once.

An entry is a folder, named by a digest of the weights' every byte and of how they were quantised. Whoever uses one
holds a shared lock on it, whoever writes or removes one an exclusive lock. It is renamed before it is removed, so that
none is ever half there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import numpy as np

from ernie_rt import writing
from ernie_rt.display import listed
from ernie_rt.errors import CheckpointError, InputError, OptionError, UnsafePathError, WriteError
from ernie_rt.files import Progress
from ernie_rt.graph.types import Weight
from ernie_rt.home import user_cache
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.weights.folder import PROGRESS
from ernie_rt.weights.hub import FILES, model_name
from ernie_rt.weights.integrity import shared_with
from ernie_rt.weights.manifest import MANIFEST, Manifest, file_bytes, read_manifest, shard_weights
from ernie_rt.weights.opening import SOURCES, Sources, open_weights
from ernie_rt.weights.quantize import Quantization, quantize_source
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import StoredSource

TRIAL: Final = 1 << 18
"""Numbers that are quantised to see how fast that goes."""

ENTRY: Final = re.compile(r"[0-9a-f]{32}(\.partial|\.[0-9a-f]{8}\.removed)?")
"""The names of entries: whole ones, those that are being written or were interrupted, and what a removal left."""

CONTENTS: Final = (*FILES, PROGRESS, ".*.tmp")
"""What may lie in an entry."""

ELSEWHERE: Final = "Set XDG_CACHE_HOME to a folder that can be read and written"
APART: Final = "or keep the quantised model apart (`ernie-rt quantize MODEL OUT`) and use that"
ROOM: Final = (
    f"Make room with `ernie-rt cache remove`, or set XDG_CACHE_HOME to a folder with room that can be written, {APART}"
)

Announce = Callable[[int, float], None]
"""Told, before a model is quantised, the bytes that it will take and about how many seconds."""


class CachedSource(QuantizedSource):
    """An entry that is being loaded: nobody removes it until this is closed."""

    def __init__(self, folder: Path, config: ModelConfig, weights: Sequence[Weight] = ()) -> None:
        """An entry that stores such `weights`. Raises FileNotFoundError for one that was just removed, UnsafePathError
        for one that others can write to, and what opening a quantised folder does."""
        self._id = folder.name[:12]
        with contextlib.ExitStack() as held:
            held.enter_context(writing.locked(folder, shared=True))
            for path in (folder.parent, folder, *folder.iterdir()):
                if found := shared_with(path):
                    raise UnsafePathError(
                        "the cache cannot be trusted that others can write to",
                        where=str(path),
                        found=found,
                        hint="Remove this folder, or set XDG_CACHE_HOME to one that is yours alone",
                    )
            with self._remedy():
                super().__init__(folder, config)
                held.callback(super().close)
                for name, wanted in ((weight.name, weight.storage) for weight in weights if weight.storage.packed):
                    if (stored := self.storages[name]) != wanted:
                        raise CheckpointError(
                            f"{name} is stored in another way", where=str(folder), expected=wanted, found=stored
                        )
            self._held = held.pop_all()
        with contextlib.suppress(OSError):
            os.utime(folder / MANIFEST)

    def close(self) -> None:
        self._held.close()

    def _verify(self, name: str) -> None:
        with self._remedy():
            super()._verify(name)

    @contextlib.contextmanager
    def _remedy(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            error.hint = f"Remove it with `ernie-rt cache remove {self._id}`, and it is made again"
            raise


def cache_folder() -> Path:
    """Where quantised models are kept."""
    return user_cache() / "quantized"


def cached_weights(
    folder: Path,
    config: ModelConfig,
    how: Quantization,
    *,
    threads: int = 1,
    announce: Announce = lambda nbytes, seconds: None,
    waiting: Callable[[], None] = lambda: None,
    hashing: Progress | None = None,
    quantizing: Progress | None = None,
    sources: Sources = SOURCES,
) -> QuantizedSource:
    """The weights of a checkpoint's quantised twin in the cache, which is made when it is missing; the caller closes
    them. A folder that is quantised so is its own twin.

    One that another process is making is waited for, which `waiting` is told. `hashing` and `quantizing` are told how
    far the checkpoint has been hashed and the twin written. Raises what `quantize_model` does; OptionError for a folder
    that is quantised otherwise.
    """
    source = open_weights(folder, config, sources)
    if any(storage.packed for storage in source.storages.values()):
        if not isinstance(source, QuantizedSource) or source.manifest.plan.get("weights") != f"int{how.bits}":
            source.close()
            raise OptionError("the model is quantised otherwise", where=str(folder), hint="Leave --weights out")
        return source
    try:
        plan, weights = how.plan(source.fingerprint(hashing)), how.weights(config, source.storages)
        try:
            twin = cache_folder() / _name(plan, weights)
        except WriteError as error:
            error.hint = f"{error.hint}, {APART}"
            raise
        while (found := _opened(twin, config, weights)) is None:
            numbers = sum(weight.type.elements() for weight in weights)
            nbytes = sum(file_bytes(group) for group in shard_weights(weights).values())
            if _is_being_made(twin):
                waiting()
                _wait(twin)
                continue
            announce(nbytes, numbers * _seconds_a_number(how) / threads)
            _make(twin, source, plan, folder, config, how, threads, quantizing)
        return found
    finally:
        source.close()


def _name(plan: Mapping[str, object], weights: Sequence[Weight]) -> str:
    """One for each result: what it is made of, how, and as which weights a config sees that."""
    shapes = {weight.name: weight.type.dims for weight in weights}
    return hashlib.sha256(json.dumps([plan, shapes], sort_keys=True).encode()).hexdigest()[:32]


def _opened(twin: Path, config: ModelConfig, weights: Sequence[Weight]) -> CachedSource | None:
    try:
        return CachedSource(twin, config, weights) if twin.exists() else None
    except FileNotFoundError:  # removed this moment
        return None
    except OSError as error:
        raise UnsafePathError("cannot be opened", where=str(twin), found=error.strerror, hint=ROOM) from error


def _make(
    twin: Path, source: StoredSource, plan: Mapping[str, object], folder: Path, config: ModelConfig,
    how: Quantization, threads: int, progress: Progress | None,
) -> None:  # fmt: skip
    try:
        twin.parent.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            "the cache cannot be written", where=str(twin.parent), found=error.strerror, hint=ROOM
        ) from error
    model = model_name(folder)
    try:
        quantize_source(
            source, plan, folder, config, twin, how, threads=threads, progress=progress, model=model, links=True
        )
    except WriteError as error:
        if twin.exists():  # another process was faster
            return
        if isinstance(error.__cause__, BlockingIOError):  # it was faster to begin
            return
        error.hint = ROOM
        raise


def _is_being_made(twin: Path) -> bool:
    """Whether another process is writing it now, rather than was interrupted."""
    partial = writing.partial_of(twin)
    try:
        with writing.locked(partial):
            return False
    except WriteError:
        return True
    except OSError:  # none is there, or none that can be opened, which whoever makes it says
        return False


def _wait(twin: Path) -> None:
    """Until whoever writes it has ended."""
    with contextlib.suppress(OSError), writing.locked(writing.partial_of(twin), shared=True):
        pass


def _seconds_a_number(how: Quantization) -> float:
    values = np.random.default_rng(0).standard_normal((TRIAL // 1024, 1024), np.float32)
    began = time.perf_counter()
    how.linears.quantize(values, search=how.clip_search, where="a trial")
    return (time.perf_counter() - began) / TRIAL


@dataclass(frozen=True, slots=True)
class Entry:
    """A quantised model in the cache.

    `model` is what its checkpoint was called, `weights` are as in `int4/32`; empty when nothing says so. `used` is when
    it last was, in seconds since the epoch. One that is not `whole` is being written or removed, or that was
    interrupted.
    """

    path: Path
    model: str
    weights: str
    nbytes: int
    used: float
    whole: bool

    @property
    def id(self) -> str:
        """As much of its name as tells it from others."""
        return self.path.name[:12]


def entries() -> list[Entry]:
    """What is in the cache, the last used first; what else lies there is left out."""
    try:
        found = [_entry(path) for path in cache_folder().iterdir() if ENTRY.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UnsafePathError(
            "cannot be read", where=str(cache_folder()), found=error.strerror, hint=ELSEWHERE
        ) from error
    return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.used)


def _entry(path: Path) -> Entry | None:
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or (os.name == "posix" and status.st_uid != os.geteuid()):
            return None
        nbytes = sum(each.lstat().st_size for each in path.iterdir())
        manifest = next((path / name for name in (MANIFEST, PROGRESS) if (path / name).is_file()), None)
        used = (status if manifest is None else manifest.stat()).st_mtime
    except FileNotFoundError:  # removed this moment
        return None
    try:
        said = Manifest({}) if manifest is None else read_manifest(manifest)
    except InputError:
        said = Manifest({})
    weights = "/".join(str(said.plan[key]) for key in ("weights", "block") if key in said.plan)
    whole = "." not in path.name and manifest is not None and manifest.name == MANIFEST
    return Entry(path, said.origin.get("model", ""), weights, nbytes, used, whole)


def remove(entry: Entry) -> None:
    """Remove an entry. WriteError when a process uses it, something else lies in it, or the system refuses."""
    path = entry.path
    try:
        with writing.locked(path):
            strange = [each.name for each in path.iterdir() if not _belongs(each)]
            if strange:
                raise WriteError(
                    "not removed, since something else lies in it",
                    where=str(path),
                    found=listed(strange),
                    hint="Move that away",
                )
            gone = path.with_name(f"{path.name[:32]}.{secrets.token_hex(4)}.removed")
            path.rename(gone)
            for each in gone.iterdir():
                each.unlink()
            gone.rmdir()
    except FileNotFoundError:  # by somebody else
        return
    except OSError as error:
        hint = "Windows removes no file that a process has open: end that first" if os.name == "nt" else None
        raise WriteError("cannot be removed", where=str(path), found=error.strerror, hint=hint) from error


def _belongs(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode) and any(fnmatch(path.name, pattern) for pattern in CONTENTS)
