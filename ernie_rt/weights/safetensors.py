"""One safetensors file: a checked header, and tensors as views of the mapped file."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import mmap
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes  # noqa: F401  # gives NumPy the name bfloat16
import numpy as np

from ernie_rt import files
from ernie_rt.errors import FileFormatError, UnsafeCheckpointError
from ernie_rt.graph.types import DTYPES
from ernie_rt.untrusted_json import MOST_SIGNS, parse_json
from ernie_rt.weights.stamps import Stamp

HEADER_LIMIT: Final = 4 * files.MIB
"""The format allows 100 MB, but the largest ERNIE in one file would need 2 MB."""

NUMPY_DTYPE: Final[Mapping[str, np.dtype[Any]]] = {
    facts.stored: np.dtype(dtype).newbyteorder("<") for dtype, facts in DTYPES.items()
} | {"U16": np.dtype("<u2")}
"""The stored dtypes that can be read; a header may hold others."""

BITS: Final[Mapping[str, int]] = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""The format's dtypes. A tensor of one that is not known here is a range of bytes, as long as nobody reads it."""

MAX_AXES: Final = 64
"""NumPy's."""

AGAIN: Final = "Fetch the file again"

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
        self._check_whole()
        # Not np.ndarray(buffer=...), which would let the file be unmapped under it.
        flat = np.frombuffer(self._map, dtype, count=math.prod(tensor.shape), offset=tensor.offset)
        try:
            return flat.reshape(tensor.shape)
        except ValueError:  # no numbers, along an axis that is longer than memory
            raise FileFormatError(
                f"tensor {name!r} has a shape that no array can have", where=str(self.path), found=tensor.shape
            ) from None

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
                self._check_whole()
                with whole[start : start + HASHED_AT_ONCE] as piece:
                    report(len(piece))
                    digest.update(piece)
                    if hasattr(self._map, "madvise"):
                        self._map.madvise(mmap.MADV_DONTNEED, start, len(piece))
        return digest.hexdigest()

    def _check_whole(self) -> None:
        """FileFormatError where somebody has cut the file meanwhile: the system kills who reads beyond its end."""
        if self._map.size() < len(self._map):
            raise FileFormatError(
                "the file became shorter while it was read",
                where=str(self.path),
                expected=f"{len(self._map)} bytes",
                found=self._map.size(),
                hint="Whatever writes it should write another, and rename that",
            )

    def close(self) -> None:
        """Unmap the file, or leave that to the last array that still shows it."""
        with contextlib.suppress(BufferError):
            self._map.close()


def _read_header(path: Path, data: mmap.mmap) -> dict[str, StoredTensor]:
    """The tensors of a mapped file, which lie in it one after the other, without a gap and to its very end.

    All rules of the format are checked here, on the bytes that will be read and not on what the path leads to by then.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(HEADER_LIMIT, len(data) - 8):
        raise _foreign(path, data[:64]) or FileFormatError(
            "not a safetensors file, or cut short",
            where=str(path),
            expected=f"a header of at most {min(HEADER_LIMIT, max(len(data) - 8, 0))} bytes",
            found=f"{length} in a file of {len(data)} bytes",
            hint=AGAIN,
        )
    if data[8:9] != b"{":
        raise _foreign(path, data[:64]) or FileFormatError("the header does not start with '{'", where=str(path))
    where, start = f"{path}, header", 8 + length
    header = parse_json(data[8:start], where=where, depth=4, strict=False, signs=MOST_SIGNS)
    header.pop("__metadata__", None)  # says nothing that the tensors do not say better
    tensors = [_tensor(name, entry, start, where) for name, entry in header.items()]
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            what = f"tensor {tensor.name!r} does not begin where the one before it ends"
            raise FileFormatError(what, where=where, expected=end - start, found=tensor.offset - start, hint=AGAIN)
        end += tensor.nbytes
    if end != len(data):
        raise FileFormatError(
            "the tensors do not fill the file", where=str(path), expected=f"{end} bytes", found=len(data), hint=AGAIN
        )
    return {tensor.name: tensor for tensor in tensors}


def _tensor(name: str, entry: object, start: int, where: str) -> StoredTensor:
    """What a header's entry says, in which the offsets count from `start`."""
    if not name.isprintable() or not 0 < len(name) <= 256:
        raise FileFormatError("an impossible tensor name", where=where, found=ascii(name[:80]))
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if (
            not rest
            and len(shape) <= MAX_AXES
            and all(type(n) is int and 0 <= n < 1 << 64 for n in (*shape, begin, end))
            and begin <= end
            and max(itertools.accumulate(shape, operator.mul), default=0) < 1 << 64  # or a reader in 64 bits overflows
            and (dtype not in BITS or BITS[dtype] * math.prod(shape) == 8 * (end - begin))
        ):
            return StoredTensor(name, dtype, tuple(shape), start + begin, end - begin)
    raise FileFormatError(
        f"an impossible entry for tensor {name!r}",
        where=where,
        expected=f"dtype, shape of at most {MAX_AXES} axes, and data_offsets of as many bytes as these take",
        found=repr(entry)[:200],
        hint=AGAIN,
    )


def _foreign(path: Path, first_bytes: bytes) -> FileFormatError | None:
    kind = files.recognise(first_bytes)
    if kind is None:
        return None
    error = UnsafeCheckpointError if kind in {"a pickle", "a zip archive"} else FileFormatError
    return error("not a safetensors file", where=str(path), found=kind, hint=files.FOREIGN[kind])
