"""The user's own folders, for what ernie-rt keeps between runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ernie_rt.errors import WriteError


def user_cache() -> Path:
    """Where to keep what can be made again: `XDG_CACHE_HOME`, or ~/.cache, then ernie-rt. Raises as `_home` does."""
    return _home("XDG_CACHE_HOME", ".cache") / "ernie-rt"


def user_state() -> Path:
    """Where to keep what cannot: `XDG_STATE_HOME`, or ~/.local/state, then ernie-rt. Raises as `_home` does."""
    return _home("XDG_STATE_HOME", ".local/state") / "ernie-rt"


def _home(variable: str, otherwise: str) -> Path:
    """What a variable says, `~` being the home folder, or a folder there; WriteError without a home, and for a path
    that would be another one in every folder that a command is started in."""
    given = os.environ.get(variable)
    hint = f"Set {variable} to the absolute path of a folder that can be written"
    try:
        path = Path(given).expanduser() if given else Path.home() / otherwise
    except RuntimeError as error:
        raise WriteError("this user has no home folder", found=given, hint=hint) from error
    if not path.is_absolute():
        where = variable if given else "HOME"
        raise WriteError("not an absolute path", where=where, found=repr(str(path))[:80], hint=hint)
    return path


def is_private(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write it; False where the system cannot say."""
    return os.name == "posix" and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
