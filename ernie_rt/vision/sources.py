"""What a picture or video may be given as: a path or the bytes of a file, or an array; and that nothing is fetched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.display import human_bytes, printable
from ernie_rt.errors import InputError, MediaError
from ernie_rt.files import MIB, open_readonly, read_bytes
from ernie_rt.vision.formats import HEAD_BYTES, Kind

ADDRESS: Final = re.compile(r"(data|file):|[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def path_of(source: str | Path) -> Path:
    """The path that a text is; MediaError for an address."""
    if isinstance(source, str) and (found := ADDRESS.match(source)):
        raise MediaError(
            "an address, where a path or bytes belong: nothing is fetched",
            found=printable(source[:60]),
            hint="Decode its base64, and give the bytes"
            if found[0].lower() == "data:"
            else "Download it first, and give its path or its bytes",
        )
    try:
        return Path(source).expanduser()
    except RuntimeError:
        raise MediaError("there is no such file", where=str(source), found="a home folder of nobody") from None


def contents(source: str | Path | bytes, kind: Kind, most: int) -> tuple[bytes, str | None]:
    """The bytes of a file of at most so many, and its path where it has one; MediaError where it cannot be read."""
    if isinstance(source, bytes):
        check_bytes(len(source), kind, None, most)
        return source, None
    path = path_of(source)
    try:
        return read_bytes(path, most), str(path)
    except InputError as error:
        raise _as_media(error) from error


def beginning(path: Path, kind: Kind, most: int) -> bytes:
    """The first bytes of a file of at most so many; MediaError where it cannot be read."""
    with _opened(path) as file:
        check_bytes(file.seek(0, 2), kind, str(path), most)
        file.seek(0)
        return file.read(HEAD_BYTES)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; MediaError where it cannot be read."""
    with _opened(path) as file:
        digest = hashlib.sha256()
        while piece := file.read(MIB):
            digest.update(piece)
        return digest.hexdigest()


def check_bytes(size: int, kind: Kind, where: str | None, most: int) -> None:
    """MediaError for more than `most` bytes."""
    if size > most:
        raise MediaError(
            f"the {kind} is too large",
            where=where,
            expected=f"at most {human_bytes(most)}",
            found=human_bytes(size),
            hint="Make it smaller first",
        )


def check_array(array: npt.NDArray[Any], shape: str) -> None:
    """MediaError unless it holds bytes in this shape, such as `[height, width, 3]`."""
    sides = shape.count(",") + 1
    if array.dtype != np.uint8 or array.ndim != sides or array.shape[-1] != 3 or 0 in array.shape:
        raise MediaError(
            "an array in another form than that of pixels",
            expected=f"uint8 {shape}, red, green and blue from 0 to 255",
            found=f"{array.dtype} {list(array.shape)}",
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file that is read piece by piece; MediaError where that is not possible."""
    try:
        with open_readonly(path) as file:
            yield file
    except MediaError:
        raise
    except InputError as error:
        raise _as_media(error) from error
    except OSError as error:
        raise MediaError("cannot be read", where=str(path), found=error.strerror) from error


def _as_media(error: InputError) -> MediaError:
    return MediaError(error.what, where=error.where, expected=error.expected, found=error.found, hint=error.hint)
