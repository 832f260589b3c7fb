"""One safetensors file: a checked header, and tensors as views of the mapped file."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from ernie_rt import files
from ernie_rt.errors import FileFormatError, UnsafeCheckpointError
from ernie_rt.graph.types import DTYPES
from ernie_rt.weights.stamps import Stamp

HEADER_LIMIT: Final = 4 * files.MIB
"""The format allows 100 MB, but the largest ERNIE in one file would need 2 MB."""

NUMPY_DTYPE: Final[Mapping[str, np.dtype[Any]]] = {
    facts.stored: np.dtype(dtype).newbyteorder("<") for dtype, facts in DTYPES.items()
} | {"U16": np.dtype("<u2")}
"""The stored dtypes that can be read; a header may hold others."""

HASHED_AT_ONCE: Final = 16 * files.MIB
"""A multiple of a page; hashing ends within some ten milliseconds when it is told to."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a header says about a tensor: `dtype` in the format's spelling, `offset` in bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """A mapped safetensors file; opening it reads the header alone.

    Raises UnsafePathError, UnsafeCheckpointError for a pickle or zip under this name, or FileFormatError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map, status = files.map_readonly(path)
        self.stamp = Stamp.of(status)
        try:
            self.tensors: Mapping[str, StoredTensor] = MappingProxyType(_read_header(path, self._map))
        except BaseException:
            self._map.close()
            raise

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """A read-only view of the file, valid as long as the array lives; its pages are read when touched."""
        tensor = self.tensors[name]
        dtype = NUMPY_DTYPE.get(tensor.dtype)
        if dtype is None:
            raise FileFormatError(
                f"tensor {name!r} has a dtype that ernie-rt does not read",
                where=str(self.path),
                expected=", ".join(NUMPY_DTYPE),
                found=tensor.dtype,
            )
        # Not np.ndarray(buffer=...), which would let the file be unmapped under it.
        flat = np.frombuffer(self._map, dtype, count=math.prod(tensor.shape), offset=tensor.offset)
        return flat.reshape(tensor.shape)

    def release(self, name: str) -> None:
        """Let the system drop the pages that hold only this tensor; they are read again when touched again."""
        if not hasattr(self._map, "madvise"):
            return
        tensor = self.tensors[name]
        start = -(-tensor.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.offset + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def is_untouched(self) -> bool:
        """Whether the file at `path` is this one, and nobody has written it since."""
        try:
            return Stamp.of(self.path.stat()) == self.stamp
        except OSError:
            return False

    def sha256(self, report: Callable[[int], None] = lambda count: None) -> str:
        """The digest of the whole file, in hexadecimal; `report` is told the bytes read, and may raise to end it."""
        digest = hashlib.sha256()
        with memoryview(self._map) as whole:
            for start in range(0, len(whole), HASHED_AT_ONCE):
                with whole[start : start + HASHED_AT_ONCE] as piece:
                    report(len(piece))
                    digest.update(piece)
                    if hasattr(self._map, "madvise"):
                        self._map.madvise(mmap.MADV_DONTNEED, start, len(piece))
        return digest.hexdigest()

    def close(self) -> None:
        """Unmap the file, or leave that to the last array that still shows it."""
        with contextlib.suppress(BufferError):
            self._map.close()


def _read_header(path: Path, data: mmap.mmap) -> dict[str, StoredTensor]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(HEADER_LIMIT, len(data) - 8):
        raise _foreign(path, data[:64]) or FileFormatError(
            "not a safetensors file, or cut short",
            where=str(path),
            expected=f"a header of at most {min(HEADER_LIMIT, max(len(data) - 8, 0))} bytes",
            found=f"{length} in a file of {len(data)} bytes",
            hint="Fetch the file again",
        )
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise _foreign(path, data[:64]) or FileFormatError(
            "not a valid safetensors file", where=str(path), found=str(error)[:200], hint="Fetch the file again"
        ) from None
    # What the library lets through although the format or common sense forbids it.
    where = f"{path}, header"
    if data[8:9] != b"{":
        raise FileFormatError("the header does not start with '{'", where=str(path))
    header = files.parse_json(data[8 : 8 + length], where=where, depth=4)
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if not name.isprintable() or not 0 < len(name) <= 256:
            raise FileFormatError("an impossible tensor name", where=where, found=ascii(name[:80]))
        if set(entry) != {"dtype", "shape", "data_offsets"} or len(entry["shape"]) > 4:
            expected = "dtype, shape of at most 4 axes, data_offsets"
            raise FileFormatError(f"an impossible entry for tensor {name!r}", where=where, expected=expected)
        begin, end = entry["data_offsets"]
        tensors[name] = StoredTensor(name, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
    return tensors


def _foreign(path: Path, first_bytes: bytes) -> FileFormatError | None:
    kind = files.recognise(first_bytes)
    if kind is None:
        return None
    error = UnsafeCheckpointError if kind in {"a pickle", "a zip archive"} else FileFormatError
    return error("not a safetensors file", where=str(path), found=kind, hint=files.FOREIGN[kind])
