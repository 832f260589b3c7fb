"""The one checker of paths and reader of files: everything that reads a file goes through here."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import FileFormatError, InputError, JsonError, UnsafePathError
from ernie_rt.untrusted_json import MOST_SIGNS, parse_json

MIB: Final = 1 << 20

Progress = Callable[[int, int], None]
"""Told, as work goes on, the bytes done so far and in all."""

FOREIGN: Final[Mapping[str, str]] = {
    "a Git LFS pointer": "Run `git lfs pull` in its folder to fetch the real file",
    "an HTML page": "The download saved an error page; fetch the file again",
    "a zip archive": "Use the repository's .safetensors files",
    "a pickle": "Use the repository's .safetensors files",
}
"""What `recognise` can tell, and what to do about each."""

# Not on every system, and zero where absent.
NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | NOFOLLOW


def recognise(first_bytes: bytes) -> str | None:
    """Name a file that often lies where a model file should, by its first 64 bytes: a key of `FOREIGN`, or None."""
    head = first_bytes[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "an HTML page"
    if first_bytes.startswith(b"PK\x03\x04"):
        return "a zip archive"
    # PROTO and its version (2 to 5), then an opcode; a safetensors header length would go on with zeros.
    if len(first_bytes) > 2 and first_bytes[0] == 0x80 and 2 <= first_bytes[1] <= 5 and first_bytes[2] != 0:
        return "a pickle"
    return None


def member(folder: Path, name: str, *, missing: type[InputError] = FileFormatError, own: bool = False) -> Path:
    """Return `folder / name`: the only way from a name that was read in a file to a path.

    The name is one plain component and the file a regular one. It may be a link, since people make folders of links,
    and what is only read here goes nowhere. Who copies what it reads into another folder, or vouches for this one,
    asks for its `own` files: a link must end inside the folder then, or, in a snapshot of the Hugging Face cache
    (`models--*/snapshots/*`), in the repository's `blobs`. Never blocks. Raises UnsafePathError, or `missing` when
    there is no such file.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name) or name in {".", ".."}:
        raise UnsafePathError(
            "a file name that could lead out of its folder",
            where=str(folder),
            expected="letters, digits, '.', '_' and '-'",
            found=ascii(name[:80]),
        )
    path = folder / name
    if own:
        _check_own(folder, path)
    close(_open_regular(path, missing))
    return path


def _check_own(folder: Path, path: Path) -> None:
    """UnsafePathError for a link that leaves its folder: what it leads to is not so much as opened."""
    try:
        home, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # of which opening it says more
        return
    homes = [home]
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        homes.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(allowed) for allowed in homes):
        raise UnsafePathError(
            "a link that leaves its folder",
            where=str(path),
            found=f"a link to {target}",
            hint="Copy the folder with what its links lead to, `cp -rL FOLDER COPY`, and take the copy",
        )


def open_readonly(path: Path) -> BufferedReader:
    """A regular file, to be read piece by piece."""
    return os.fdopen(_open_regular(path), "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most `limit` bytes."""
    with os.fdopen(_open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = (file.read(size + 1) or b"") if size <= limit else b""  # None where a read would block
            if len(data) > size:  # it grows, or lies in /proc, where files have no size
                data += file.read(limit + 1 - size) or b""
        except OSError as error:
            raise FileFormatError("cannot be read", where=str(path), found=error.strerror) from error
        size = max(size, len(data))
        if size > limit:
            raise FileFormatError("too large", where=str(path), expected=f"at most {limit} bytes", found=f"{size}")
        return data


def read_json(
    path: Path, *, limit: int = MIB, depth: int = 64, strict: bool = False, signs: int | None = MOST_SIGNS
) -> dict[str, Any]:
    """Return the JSON object in a file, read by the rules of `parse_json`.

    What nobody reads may be anything that JSON libraries write, unless the file is to be `strict`. `signs` None is for
    a file that holds people's text, in which there may be any number of commas.
    """
    data = read_bytes(path, limit)
    kind = recognise(data)
    if kind is not None:
        raise JsonError("not JSON", where=str(path), found=kind, hint=FOREIGN[kind])
    value = parse_json(data, where=str(path), depth=depth, strict=strict, signs=signs)
    if not isinstance(value, dict):
        raise JsonError("the top level is not an object", where=str(path), found=type(value).__name__)
    return value


def map_readonly(path: Path) -> tuple[mmap.mmap, os.stat_result]:
    """Map a whole regular file for reading, and say what the system knew of it then; FileFormatError when it is empty.

    It is mapped at the size that it had then, in huge pages where the system has them for files: memory that is read
    from end to end, as weights are, is read up to half as fast again.
    """
    descriptor = _open_regular(path)
    try:
        status = os.fstat(descriptor)
        if status.st_size == 0:
            raise FileFormatError("the file is empty", where=str(path), hint="Fetch it again")
        mapped = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a system without them
                mapped.madvise(mmap.MADV_HUGEPAGE)
        return mapped, status
    except (OSError, ValueError) as error:  # ValueError: it has become shorter
        reason = getattr(error, "strerror", None) or str(error)
        raise FileFormatError("cannot be mapped", where=str(path), found=reason) from error
    finally:
        close(descriptor)


def _open_regular(path: Path, missing: type[InputError] = FileFormatError) -> int:
    """Open a regular file for reading, symlinks resolved; never blocks and never opens a device."""
    try:
        target = path.resolve(strict=True)
        mode = target.lstat().st_mode
        if stat.S_ISREG(mode):
            descriptor = os.open(target, READ)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                return descriptor
            os.close(descriptor)
    except FileNotFoundError as error:
        raise missing("there is no such file", where=str(path), found=dead_link(path)) from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise UnsafePathError("cannot be opened", where=str(path), found=reason) from error
    raise UnsafePathError("not a regular file", where=str(path), found=kind_of(mode))


def dead_link(path: Path) -> str | None:
    """What to say of a link that leads nowhere, as after a disk was taken away; None for anything else."""
    try:
        if path.is_symlink() and not path.exists():
            return f"a link to {ascii(str(path.readlink()))[:200]}, which is not there"
    except OSError:  # a name too long for a path
        pass
    return None


def kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def close(descriptor: int) -> None:
    """Close what nothing was written to, so that nothing is lost where that fails."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
