"""Is a folder what was written: each file by its digest, and nothing else there to be read as a part of the model?"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from ernie_rt import files
from ernie_rt.display import printable
from ernie_rt.errors import IntegrityError
from ernie_rt.files import Progress

INERT: Final = ("README.md", "LICENSE*", "NOTICE*", ".gitattributes", ".cache")
"""What hubs and people put beside a model, and no program reads as a part of it."""


BESIDE_LIMIT: Final = 64 * files.MIB
"""Of each file of a model that holds no weights."""


def digest_of(path: Path, report: Callable[[int], None] = lambda count: None, limit: int | None = None) -> str:
    """The sha256 of a regular file of at most `limit` bytes, in hexadecimal; `report` is told the bytes read.

    IntegrityError when it cannot be read; UnsafePathError.
    """
    digest = hashlib.sha256()
    with files.open_readonly(path) as file:
        size = left = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise IntegrityError("too large", where=str(path), expected=f"at most {limit} bytes", found=size)
        try:
            while piece := file.read(min(left, files.MIB)):  # what it grows by meanwhile is no part of it
                digest.update(piece)
                left -= len(piece)
                report(len(piece))
        except OSError as error:
            raise IntegrityError("cannot be read", where=str(path), found=error.strerror) from error
    return digest.hexdigest()


def own_file(folder: Path, name: str) -> Path:
    """The path of a regular file of the folder that has no other name; IntegrityError, UnsafePathError."""
    path = files.member(folder, name, missing=IntegrityError, own=True)
    links = path.stat().st_nlink
    if links > 1:
        raise IntegrityError(
            "a hard link: by its other name, wherever that is, the file can be changed after it was checked",
            where=str(path),
            expected="1 name",
            found=links,
            hint="Copy the folder without links (`cp -r`), and verify the copy",
        )
    return path


def shared_with(path: Path) -> str:
    """Who else may have written, or may change, a file or folder, in words; empty when nobody, or no system can say."""
    status = path.lstat()
    if os.name != "posix":
        return ""
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    return f"everybody may write it: mode {stat.S_IMODE(status.st_mode):o}" if status.st_mode & stat.S_IWOTH else ""


def check_digests(
    folder: Path,
    digests: Mapping[str, str],
    sizes: Mapping[str, int],
    again: str,
    progress: Progress | None = None,
) -> None:
    """IntegrityError unless the files of a folder have these digests; `again` is what helps then.

    `sizes` are those of files of weights; others have `BESIDE_LIMIT`. All are compared before a byte is read, since a
    file without a byte on the disk may be terabytes long. `progress` is told bytes. Every byte is read: no digest is
    believed because it is remembered.
    """
    paths = {name: own_file(folder, name) for name in digests}
    found_sizes = {name: path.stat().st_size for name, path in paths.items()}
    for name, found in found_sizes.items():
        if found != sizes.get(name, found) or (name not in sizes and found > BESIDE_LIMIT):
            raise IntegrityError(
                "the file has another size than when it was written",
                where=str(paths[name]),
                expected=f"{sizes[name]} bytes" if name in sizes else f"at most {BESIDE_LIMIT} bytes",
                found=found,
                hint=again,
            )
    done, total = 0, sum(found_sizes.values())

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for name, path in paths.items():
        digest = digest_of(path, report)
        if digest != digests[name]:
            raise IntegrityError(
                "the file is not the one that was written: its digest differs",
                where=str(path),
                expected=f"sha256 {digests[name]}",
                found=digest,
                hint=again,
            )


def check_others(folder: Path, known: Collection[str]) -> tuple[str, ...]:
    """Remarks on what else lies in a folder and is no part of the model; IntegrityError for what may be read as one."""
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    for name in strange:
        if not any(fnmatch(name, pattern) for pattern in INERT):
            raise IntegrityError(
                "this was not exported with the model, and may be read as a part of it",
                where=f"{folder}/{printable(name)}",
                hint="Move it away",
            )
    return tuple(f"no part of the model, and not checked: {printable(name)}" for name in strange)
