"""The folders in which ernie-rt keeps things: whether they can be written, by whom else, and how fast they are read."""

from __future__ import annotations

import mmap
import os
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from ernie_rt.contract.findings import Finding
from ernie_rt.display import human_bytes
from ernie_rt.doctor.report import Fact
from ernie_rt.errors import WriteError
from ernie_rt.home import user_cache, user_state

LEAST_SPACE: Final = 1 << 30
"""Where less is free, the smallest published model finds no room."""
SLOW_DISK: Final = 100e6
"""Bytes a second: the 12 GB of the 21B in int4 take two minutes."""
READING: Final = 0.3
"""Seconds that a disk is read for."""
PIECE: Final = 1 << 23
LEAST_FILE: Final = 4 * PIECE
"""Of a file that is read to measure a disk; where there is none of that size, one is written."""
MOST_FILES: Final = 20_000
"""Files that are looked at to find a large one."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the user's: what it holds, the variable that says where it is, and whether what others wrote there
    is refused."""

    path: Path
    holds: str
    variable: str
    private: bool = True


def folders() -> Iterator[Fact | Finding]:
    """Whether each folder can be written, has space, and is its user's own."""
    found: list[Folder] = []
    for wanted in (_of_hub, _of_cache, _of_state):
        try:
            found.append(wanted())
        except WriteError as error:
            variable = error.where or ""
            command = f"unset {variable}" if variable in os.environ else ""
            costs = "nothing can be kept between runs"
            seen = f"{error.what}: {variable} {error.found}" if variable else error.what
            yield Finding("broken", seen, costs, command, error.hint or "")
    full: set[int] = set()
    for folder in found:
        existing = _nearest(folder.path)
        yield from _writable(folder, existing)
        if existing == folder.path:
            yield from _own(folder)
        device, free = existing.stat().st_dev, shutil.disk_usage(existing).free
        yield Fact(folder.holds, f"{folder.path}, with {human_bytes(free)} free")
        if free < LEAST_SPACE and device not in full:
            full.add(device)
            advice = f"Make room (`ernie-rt cache remove`, `hf cache rm`), or set {folder.variable} to another folder"
            seen = f"{human_bytes(free)} are free where {folder.holds} are kept, {folder.path}"
            yield Finding("broken", seen, "no model can be downloaded or quantised", advice=advice)


def disk() -> Iterator[Fact | Finding]:
    """How fast files are read where models are kept."""
    try:
        folder = _of_hub().path
    except WriteError:  # which is said of the folders
        return
    measured = _measure(folder)
    if measured is None:
        yield Fact("disk", f"not measured: no large file in {folder}, and none can be written")
        return
    speed, past_cache = measured
    how = "past the page cache" if past_cache else "perhaps from memory, as this file system cannot be read past it"
    yield Fact("disk", f"{human_bytes(speed)} a second ({how})")
    if speed < SLOW_DISK:
        seen = f"models are read at {human_bytes(speed)} a second from {folder}"
        costs = f"the 12 GB of the 21B in int4 take {12e9 / speed / 60:.0f} minutes"
        yield Finding("slow", seen, costs, advice="Set HF_HOME and XDG_CACHE_HOME to folders on a faster disk")


def _of_hub() -> Folder:
    """Where downloads of the Hugging Face hub are, by the rules of its library, which is not imported for it.

    WriteError without a home.
    """
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    try:
        path = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    except RuntimeError as error:
        hint = "Set HF_HOME to the absolute path of a folder that can be written"
        raise WriteError("this user has no home folder", hint=hint) from error
    return Folder(path.absolute(), "downloaded models", "HF_HOME", private=False)


def _of_cache() -> Folder:
    return Folder(user_cache(), "quantised models", "XDG_CACHE_HOME")


def _of_state() -> Folder:
    return Folder(user_state(), "chats", "XDG_STATE_HOME")


def _nearest(path: Path) -> Path:
    """A folder or, where it is not there or cannot be reached, the first around it that can."""
    return next(each for each in (path, *path.parents) if os.path.isdir(each))  # noqa: PTH112 (Path's raises)


def _writable(folder: Folder, existing: Path) -> Iterator[Finding]:
    """Whether a file can be written there, by writing one."""
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
    except OSError as error:
        status = existing.stat()
        mine = os.name == "posix" and status.st_uid == os.geteuid()
        command = f"chmod u+rwx {shlex.quote(str(existing))}" if mine and not status.st_mode & stat.S_IWUSR else ""
        seen = f"{existing}, where {folder.holds} are kept, cannot be written: {error.strerror}"
        advice = "" if command else f"Set {folder.variable} to the absolute path of a folder that can be written"
        yield Finding("broken", seen, f"{folder.holds} cannot be kept", command, advice)


def _own(folder: Folder) -> Iterator[Finding]:
    """Whether somebody else may write a folder, or what lies directly in it."""
    if os.name != "posix":
        return
    for path, status in _in_and_around(folder.path):
        if status.st_uid != os.geteuid():
            seen, sudo = f"{path} belongs to another user ({status.st_uid})", "sudo " if os.geteuid() else ""
            command = f'{sudo}chown -R "$(id -un)" {shlex.quote(str(path))}'
        elif status.st_mode & stat.S_IWOTH:
            seen = f"everybody may write {path} (mode {stat.S_IMODE(status.st_mode):o})"
            command = f"chmod -R go-w {shlex.quote(str(path))}"
        else:
            continue
        costs = "another user can change what your models compute"
        if folder.private:
            costs += ": ernie-rt believes nothing that is kept there"
        yield Finding("broken" if folder.private else "remark", seen, costs, command)
        return


def _in_and_around(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """A folder and, as far as they can be seen, what lies directly in it, links aside."""
    yield folder, folder.lstat()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, MOST_FILES):
            if not entry.is_symlink():
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _measure(folder: Path) -> tuple[float, bool] | None:
    """Bytes a second of a file in a folder, or of one that is written there, and whether memory had no part in it."""
    large = _large_file(folder)
    with suppress(OSError):  # a file of somebody else's
        if large is not None:
            return _read(large)
    try:
        with tempfile.NamedTemporaryFile(dir=_nearest(folder)) as file:
            for _ in range(LEAST_FILE // PIECE):
                file.write(os.urandom(PIECE))
            file.flush()
            os.fsync(file.fileno())
            return _read(Path(file.name))
    except OSError:
        return None


def _large_file(folder: Path) -> Path | None:
    """The largest of the first files that are found in a folder, if it is large."""
    found = ((root, name) for root, _, names in os.walk(folder) for name in names)
    sizes: dict[Path, int] = {}
    for root, name in islice(found, MOST_FILES):
        with suppress(OSError):
            status = Path(root, name).lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size >= LEAST_FILE:
                sizes[Path(root, name)] = status.st_size
    return max(sizes, key=lambda path: sizes[path], default=None)


def _read(path: Path) -> tuple[float, bool]:
    """Read a file for a while, from its middle on, which is the least likely to be in memory.

    With O_DIRECT the page cache is passed by. Where a file system has none, what it holds of the file is dropped first
    (`posix_fadvise`), as far as the system cares.
    """
    direct = getattr(os, "O_DIRECT", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | direct)
    except OSError:
        direct, descriptor = 0, os.open(path, os.O_RDONLY)
    try:
        if not direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        os.lseek(descriptor, size // 2 // PIECE * PIECE if size >= 1 << 30 else 0, os.SEEK_SET)
        with mmap.mmap(-1, PIECE) as buffer:  # which begins with a page, as O_DIRECT wants it
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < READING and (count := os.readv(descriptor, [buffer])):
                done += count
            return done / (time.perf_counter() - began), bool(direct)
    finally:
        os.close(descriptor)
