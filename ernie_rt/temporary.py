"""Files and folders that are being written: beside the place that they are for, locked, and gone when they do not get
there, or when their writer was killed and another one comes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ernie_rt.files import READ, close

NOTHING: Final = -1
"""In place of a descriptor: to close it does nothing."""


@contextlib.contextmanager
def temporary_beside(path: Path, create: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Something new beside `path`, and what `create` says of it; what the block leaves of it is removed.

    As long as it is there it is locked, by which others know that who writes it lives. What nobody has locked was left
    by one that was killed, and is removed first.
    """
    for leftover in _leftovers(path):
        held = _hold(leftover)
        if held is not None and held != NOTHING:
            _remove(leftover)
            close(held)
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
        try:
            created = create(temporary)
            held = _hold(temporary)
            if held is not None:
                break
            close(created)  # taken for dead before it was locked
        except BaseException:
            _remove(temporary)
            raise
    try:
        yield temporary, created
    finally:
        _remove(temporary)
        close(held)


def _leftovers(path: Path) -> list[Path]:
    """What others write, or have left, in the place of `path`."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    try:
        with os.scandir(path.parent) as entries:
            return [path.with_name(entry.name) for entry in entries if name.fullmatch(entry.name)]
    except OSError:  # a folder that one may write to and not look into
        return []


def _hold(temporary: Path) -> int | None:
    """Lock it, until this descriptor is closed: NOTHING where that is not possible; None when another one has it, or it
    has gone."""
    try:
        import fcntl

        descriptor = os.open(temporary, READ)
    except FileNotFoundError:
        return None
    except (ImportError, OSError):
        return NOTHING
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), temporary.stat()):
            return descriptor
        held = None
    except (BlockingIOError, FileNotFoundError):
        held = None
    except OSError:
        held = NOTHING
    close(descriptor)
    return held


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink()
    except OSError:  # a folder
        shutil.rmtree(temporary, ignore_errors=True)
