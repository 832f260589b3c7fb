"""Rows of a cache in files that outlive the process, a record each.

A record has a name that cannot be worked out without the folder's secret, the tokens that its rows are of and all
before them, the rows, and a digest of all that, made with the secret. A file that is not to the byte what was written
under its name is no record: it is removed. The records that were used longest ago give way to new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import Final

from ernie_rt import files, writing
from ernie_rt.errors import ErnieRtError, UnsafePathError, WriteError
from ernie_rt.home import is_private

MAGIC: Final = b"ernie-rt rows 1\n"
SECRET: Final = "secret"  # noqa: S105  the name of a file
SECRET_BYTES: Final = 32
DIGEST_BYTES: Final = 32

RECORD: Final = re.compile(r"[0-9a-f]{64}\.rows")
UNFINISHED: Final = re.compile(r"\.[0-9a-f]{64}\.rows\.[0-9a-f]{16}\.tmp")
STALE_SECONDS: Final = 600
"""A record that has been unfinished for so long belongs to a process that was killed."""

Bytes = bytes | memoryview


class RowStore:
    """A folder of records, of at most `nbytes` together, for any number of processes.

    Raises WriteError for a folder that cannot be made or written, UnsafePathError for one that others can write to.
    """

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.folder = folder
        self.nbytes = nbytes
        _make_private(folder)
        self._secret = _secret(folder / SECRET)

    def digest(self) -> hashlib.blake2b:
        """What a name is to be made with."""
        return hashlib.blake2b(digest_size=DIGEST_BYTES, key=self._secret)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, whatever it holds."""
        return os.path.lexists(self._path(name))

    def read(self, name: str, key: Bytes, nbytes: int) -> memoryview | None:
        """The `nbytes` of rows that were written under a name for these tokens; None where there is no such record."""
        head = self._head(name, key)
        size = len(head) + nbytes + DIGEST_BYTES
        try:
            record = memoryview(files.read_bytes(self._path(name), size))
        except ErnieRtError:
            record = memoryview(b"")
        content, digest = record[:-DIGEST_BYTES], record[-DIGEST_BYTES:]
        if len(record) == size and content[: len(head)] == head and self._digest_of(content) == digest:
            return content[len(head) :]
        with contextlib.suppress(OSError):
            self._path(name).unlink()
        return None

    def write(self, name: str, key: Bytes, data: Bytes, used_ns: int) -> None:
        """Keep a record, last used at this time; WriteError when that fails, and nothing of it stays."""
        head, rows = self._head(name, key), memoryview(data)
        size = len(head) + rows.nbytes + DIGEST_BYTES
        if size > self.nbytes:
            return
        digest = self.digest()
        digest.update(head)
        digest.update(rows)
        try:
            self._make_room(size)
            with writing.write_atomic(self._path(name), mode=0o600) as file:
                file.write(head)
                file.write(rows)
                file.write(digest.digest())
            self.use(name, used_ns)
            self._make_room(0)  # others may have written at the same time
        except OSError as error:
            raise WriteError("cannot be written", where=str(self.folder), found=error.strerror) from error

    def use(self, name: str, used_ns: int) -> None:
        """A record was used at this time, in nanoseconds since the epoch."""
        with contextlib.suppress(OSError):
            os.utime(self._path(name), ns=(used_ns, used_ns))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.rows"

    def _head(self, name: str, key: Bytes) -> bytes:
        return MAGIC + bytes.fromhex(name) + key

    def _digest_of(self, content: Bytes) -> bytes:
        digest = self.digest()
        digest.update(content)
        return digest.digest()

    def _make_room(self, needed: int) -> None:
        """Remove what was used longest ago, until so many bytes have room."""
        records: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                finished = RECORD.fullmatch(entry.name)
                if not finished and not UNFINISHED.fullmatch(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if not finished and time.time() - status.st_mtime > STALE_SECONDS:
                        Path(entry).unlink()
                    elif finished:
                        records.append((status.st_mtime_ns, status.st_size, entry.path))
        excess = sum(size for _, size, _ in records) + needed - self.nbytes
        for _, size, path in sorted(records):
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, ValueError) as error:
        raise WriteError(
            "the folder for the cache cannot be made",
            where=repr(str(folder)),
            found="a file of that name" if folder.is_file() else getattr(error, "strerror", None) or str(error),
            hint="Choose another one",
        ) from error
    if os.name == "posix" and not is_private(status):
        mine = status.st_uid == os.geteuid()
        raise UnsafePathError(
            "a cache cannot be trusted that others can write to",
            where=str(folder),
            found=f"mode {stat.S_IMODE(status.st_mode):o}" if mine else f"a folder of user {status.st_uid}",
            hint="Choose a folder of your own" + (", or `chmod go-w` this one" if mine else ""),
        )


def _secret(path: Path) -> bytes:
    """The secret of a folder, which is made where it is missing; another one where it is none that others cannot know,
    so that what was written before is found no more."""
    for overwrite in (False, True):
        with contextlib.suppress(ErnieRtError, OSError):
            found = files.read_bytes(path, SECRET_BYTES)
            status = path.lstat()
            if len(found) == SECRET_BYTES and stat.S_ISREG(status.st_mode) and _known_to_me_alone(status):
                return found
        try:
            with writing.write_atomic(path, overwrite=overwrite, mode=0o600) as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
        except WriteError as error:
            if not isinstance(error.__cause__, FileExistsError):  # another process was faster
                raise
    return files.read_bytes(path, SECRET_BYTES)


def _known_to_me_alone(status: os.stat_result) -> bool:
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
