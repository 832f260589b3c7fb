"""The one atomic writer: everything that writes files or folders, or keeps some for a while, goes through here."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from ernie_rt.display import human_bytes
from ernie_rt.errors import UnsafePathError, WriteError
from ernie_rt.files import MIB, NOFOLLOW, close, kind_of
from ernie_rt.temporary import NOTHING, temporary_beside

if TYPE_CHECKING:
    import tempfile

WRITTEN_AT_ONCE: Final = 8 * MIB
"""A multiple of a huge page: what is written in smaller pieces lies in small pages until it is read anew."""

NOT_FOR_FOLDERS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What file systems say that sync no folders, those of other machines among them."""

NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What systems say that have no locks for folders: NFS among them."""

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW

T = TypeVar("T")


def check_targets(*paths: Path | None) -> None:
    """WriteError where no file could be written: what is no folder is above it, or what is no file is there already.

    For whoever wants to say so before the work whose outcome is written. None is an option that was not given.
    """
    for path in paths:
        if path is not None:
            _check_target(path)


def _check_target(path: Path) -> None:
    if "\0" in str(path):
        raise WriteError("cannot be written", where=ascii(str(path)), found="a null character in the path")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not path.parent.is_dir():
            raise WriteError(
                "cannot be written", where=str(path), found=error.strerror, hint="Make its folder first"
            ) from error
    else:
        if not stat.S_ISREG(mode):
            raise WriteError("cannot be written", where=str(path), found=kind_of(mode), hint="Name a file")
        if not os.access(path, os.W_OK):
            raise WriteError(
                "cannot be written", where=str(path), found="a file that you may not write to", hint="Name another one"
            )
    if not os.access(path.parent, os.W_OK):
        raise WriteError(
            "cannot be written",
            where=str(path),
            found="a folder that you may not write to",
            hint="Name a file elsewhere",
        )


@contextlib.contextmanager
def write_atomic(path: Path, *, overwrite: bool = True, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends well, and is gone when it does not.

    Until the final rename the old file stays as it is. An OSError, the block's own included, becomes a WriteError;
    `overwrite=False` refuses a path that exists, even one that appears meanwhile. A folder, a device or a pipe is never
    replaced, nor a file that one may not write to. `mode` is subject to the umask. What a writer of this path has left
    that was killed goes.
    """
    _check_name(path)
    _check_target(path)
    try:
        if not overwrite:
            _check_free(path)
        with temporary_beside(path, lambda place: os.open(place, _CREATE, mode)) as (temporary, descriptor):
            with os.fdopen(descriptor, "wb", WRITTEN_AT_ONCE) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                temporary.replace(path)
            else:
                _rename_new(temporary, path)
    except OSError as error:
        raise _unwritten(path, error, "Choose another path, or allow overwriting") from error
    _make_last(path)


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a new folder of files, by names such as `docs/index.md`; WriteError, and nothing is left, when that fails.

    A path that exists is refused, an empty folder included.
    """
    for name in contents:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UnsafePathError("a file name that leads out of its folder", where=str(path), found=ascii(name[:80]))
    _check_name(path)
    try:
        _check_free(path)
        with temporary_beside(path, _make_folder) as (temporary, _):
            folders = {temporary}
            for name, data in contents.items():
                folder = (temporary / name).parent
                folder.mkdir(parents=True, exist_ok=True)
                folders.update(each for each in folder.parents if each.is_relative_to(temporary))
                with write_atomic(temporary / name) as file:
                    file.write(data)
            for folder in folders:
                _sync_folder(folder)
            temporary.rename(path)
    except OSError as error:
        raise _unwritten(path, error, "Choose another name, or move it away") from error
    _make_last(path)


@contextlib.contextmanager
def build_folder(path: Path) -> Iterator[Path]:
    """Yield the folder `PATH.partial`, new or left by a run that was interrupted; it becomes `path` in the end.

    Files that were being written when a run was killed are gone; what else lies in it is for the caller to judge. A
    `path` that exists is refused and left alone. When the block fails, the folder stays as it is, unless it is empty.
    """
    partial = partial_of(path)
    try:
        _check_free(path)
        if not (partial.is_dir() and not partial.is_symlink()):
            partial.mkdir()
    except (OSError, ValueError) as error:
        raise _unwritten(path, error, "Choose another name, or move it away") from error
    try:
        with locked(partial):
            try:
                _check_free(path)  # now that nobody else can be about to make it
                for leftover in partial.glob(".*.tmp"):
                    leftover.unlink()
                yield partial
                _check_free(path)
                _sync_folder(partial)  # what was renamed in it last, before it has the name by which it is believed
                partial.rename(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.rmdir()  # by who has the lock alone: one that is empty may be another's that has just begun
                raise
    except OSError as error:
        raise _unwritten(path, error, "Choose another name, or move it away") from error
    _make_last(path)


def partial_of(path: Path) -> Path:
    """Where the folder `path` grows; WriteError where none can."""
    _check_name(path)
    return path.with_name(f"{path.name}.partial")


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process alone, gone when a `with` block ends; WriteError where none can be made."""
    import tempfile  # which few commands need

    return _made(lambda: tempfile.TemporaryDirectory(prefix="ernie-rt-"))


def temporary_file() -> BinaryIO:
    """A file without a name, gone when it is closed; WriteError where none can be made."""
    import tempfile

    return cast(BinaryIO, _made(tempfile.TemporaryFile))


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except OSError as error:
        raise unkept(error.strerror) from error


def unkept(reason: str | None) -> WriteError:
    """What is kept for the time being, in the folder for temporary files, could not be."""
    import tempfile

    return WriteError(
        "nothing can be kept in the folder for temporary files",
        where=tempfile.tempdir,
        found=reason,
        hint="Make room there, or set TMPDIR to another folder",
    )


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _check_name(path: Path) -> None:
    """WriteError for a path beside which nothing could be written, such as `.` or `/`."""
    if path.name in ("", ".."):
        raise WriteError("names no file or folder that could be written", where=repr(str(path)))


def _unwritten(path: Path, error: OSError | ValueError, instead: str) -> WriteError:
    """`instead` is what helps where something is there already."""
    hint = instead if isinstance(error, FileExistsError) else None
    reason = getattr(error, "strerror", None) or str(error)
    return WriteError("cannot be written", where=str(path), found=reason, hint=hint)


def _make_folder(path: Path) -> int:
    path.mkdir()
    return NOTHING


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a folder, where the system has such.

    Alone unless it is `shared`: WriteError when another process holds it in either way. A shared one waits for whoever
    holds it alone. The folder may have gone meanwhile: FileNotFoundError.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WriteError(
                "another process is writing it or using it", where=str(folder), hint="Wait until it ends"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        yield
    finally:
        close(descriptor)


def free_bytes(folder: Path) -> int:
    """What the disk of a folder has left."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise WriteError("its disk cannot be asked", where=str(folder), found=error.strerror) from error


def check_room(folder: Path, needed: int, where: Path, hint: str) -> None:
    """WriteError when the disk of a folder has no room for so many bytes, which are to lie at `where`."""
    room = free_bytes(folder)
    if needed > room:
        raise WriteError(
            "the disk has too little room",
            where=str(where),
            expected=human_bytes(needed),
            found=human_bytes(room),
            hint=hint,
        )


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename, but fail with FileExistsError when `path` exists: a hard link does both at once."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _check_free(path)
        temporary.replace(path)


def _make_last(path: Path) -> None:
    """Have the disk know the name that something new has got; WriteError where it may forget it."""
    try:
        _sync_folder(path.parent)
    except OSError as error:
        raise WriteError(
            "it is written, but a loss of power may undo that: its folder cannot be synced",
            where=str(path),
            found=error.strerror,
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_FOR_FOLDERS:
            raise
    finally:
        close(descriptor)
