"""The user's own folders, for what ernie-rt keeps between runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ernie_rt.errors import WriteError


def user_cache() -> Path:
    """Where to keep what can be made again: `XDG_CACHE_HOME`, or ~/.cache, then ernie-rt. WriteError without a home."""
    return _home("XDG_CACHE_HOME", ".cache") / "ernie-rt"


def user_state() -> Path:
    """Where to keep what cannot: `XDG_STATE_HOME`, or ~/.local/state, then ernie-rt. WriteError without a home."""
    return _home("XDG_STATE_HOME", ".local/state") / "ernie-rt"


def _home(variable: str, otherwise: str) -> Path:
    given = os.environ.get(variable)
    if given:
        return Path(given)
    try:
        return Path.home() / otherwise
    except RuntimeError as error:
        raise WriteError(
            "this user has no home folder", hint=f"Set {variable} to the path of a folder that can be written"
        ) from error


def is_private(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write it; False where the system cannot say."""
    return os.name == "posix" and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
