"""The one path checker, JSON reader and atomic writer: everything that reads or writes a file goes through here."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from ernie_rt.display import human_bytes
from ernie_rt.errors import FileFormatError, InputError, JsonError, UnsafePathError, WriteError
from ernie_rt.untrusted_json import MOST_SIGNS, parse_json

MIB: Final = 1 << 20

WRITTEN_AT_ONCE: Final = 8 * MIB
"""A multiple of a huge page: what is written in smaller pieces lies in small pages until it is read anew."""

Progress = Callable[[int, int], None]
"""Told, as work goes on, the bytes done so far and in all."""

FOREIGN: Final[Mapping[str, str]] = {
    "a Git LFS pointer": "Run `git lfs pull` in its folder to fetch the real file",
    "an HTML page": "The download saved an error page; fetch the file again",
    "a zip archive": "Use the repository's .safetensors files",
    "a pickle": "Use the repository's .safetensors files",
}
"""What `recognise` can tell, and what to do about each."""

NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What systems say that have no locks for folders: NFS among them."""

# Not on every system, and zero where absent.
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NOFOLLOW
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW


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
    os.close(_open_regular(path, missing))
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


def open_readonly(path: Path) -> BinaryIO:
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
        os.close(descriptor)


def check_target(path: Path) -> None:
    """WriteError where no file could be written: what is no folder is above it, or what is no file is there already.

    For whoever wants to say so before the work whose outcome is written.
    """
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
            raise WriteError("cannot be written", where=str(path), found=_kind(mode), hint="Name a file")
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
    replaced. `mode` is subject to the umask.
    """
    temporary = _beside(path, f".{path.name}.{os.urandom(8).hex()}.tmp")
    check_target(path)
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with os.fdopen(os.open(temporary, _CREATE, mode), "wb", WRITTEN_AT_ONCE) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _rename_new(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "Choose another path, or allow overwriting" if isinstance(error, FileExistsError) else None
        raise WriteError("cannot be written", where=str(path), found=reason, hint=hint) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a new folder of files, by names such as `docs/index.md`; WriteError, and nothing is left, when that fails.

    A path that exists is refused, an empty folder included.
    """
    temporary = _beside(path, f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary.mkdir()
        for name, data in contents.items():
            assert not Path(name).is_absolute() and ".." not in Path(name).parts
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(data)
        temporary.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        hint = "Choose another name, or move it away" if isinstance(error, FileExistsError) else None
        raise WriteError("cannot be written", where=str(path), found=error.strerror or str(error), hint=hint) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def build_folder(path: Path) -> Iterator[Path]:
    """Yield the folder `PATH.partial`, new or left by a run that was interrupted; it becomes `path` in the end.

    Files that were being written when a run was killed are gone; what else lies in it is for the caller to judge. A
    `path` that exists is refused and left alone. When the block fails, the folder stays as it is, unless it is empty.
    """
    partial = _beside(path, f"{path.name}.partial")
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not (partial.is_dir() and not partial.is_symlink()):
            partial.mkdir()
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    try:
        with locked(partial):
            for leftover in partial.glob(".*.tmp"):
                leftover.unlink()
            yield partial
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            partial.rename(path)
            _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.rmdir()


def _beside(path: Path, name: str) -> Path:
    """A path of this name beside `path`; WriteError where that is none that could be written, such as `.` or `/`."""
    if path.name in ("", ".."):
        raise WriteError("names no file or folder that could be written", where=repr(str(path)))
    return path.with_name(name)


def _unwritable(path: Path, error: OSError | ValueError) -> WriteError:
    hint = "Choose another name, or move it away" if isinstance(error, FileExistsError) else None
    reason = getattr(error, "strerror", None) or str(error)
    return WriteError("cannot be written", where=str(path), found=reason, hint=hint)


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
        os.close(descriptor)


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


def _open_regular(path: Path, missing: type[InputError] = FileFormatError) -> int:
    """Open a regular file for reading, symlinks resolved; never blocks and never opens a device."""
    try:
        target = path.resolve(strict=True)
        mode = target.lstat().st_mode
        if stat.S_ISREG(mode):
            descriptor = os.open(target, _READ)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                return descriptor
            os.close(descriptor)
    except FileNotFoundError as error:
        raise missing("there is no such file", where=str(path), found=dead_link(path)) from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise UnsafePathError("cannot be opened", where=str(path), found=reason) from error
    raise UnsafePathError("not a regular file", where=str(path), found=_kind(mode))


def dead_link(path: Path) -> str | None:
    """What to say of a link that leads nowhere, as after a disk was taken away; None for anything else."""
    try:
        if path.is_symlink() and not path.exists():
            return f"a link to {ascii(str(path.readlink()))[:200]}, which is not there"
    except OSError:  # a name too long for a path
        pass
    return None


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename, but fail with FileExistsError when `path` exists: a hard link does both at once."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
