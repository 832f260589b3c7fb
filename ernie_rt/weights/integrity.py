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


def digest_of(path: Path, report: Callable[[int], None] = lambda count: None) -> str:
    """The sha256 of a file, in hexadecimal; `report` is told the bytes read. IntegrityError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with files.open_readonly(path) as file:
            while piece := file.read(files.MIB):
                digest.update(piece)
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


def check_digests(folder: Path, digests: Mapping[str, str], again: str, progress: Progress | None = None) -> None:
    """IntegrityError unless the files of a folder have these digests; `again` is what helps then.

    `progress` is told bytes. Every byte is read: no digest is believed because it is remembered.
    """
    paths = {name: own_file(folder, name) for name in digests}
    done, total = 0, sum(path.stat().st_size for path in paths.values())

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for name, path in paths.items():
        found = digest_of(path, report)
        if found != digests[name]:
            raise IntegrityError(
                "the file is not the one that was written: its digest differs",
                where=str(path),
                expected=f"sha256 {digests[name]}",
                found=found,
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
