"""The library that lets calls of the C library fail, and that keeps a record of them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("calls.c")
SHORT: Final = -1
"""In place of an error: a write takes half of what it is given."""


def compiler() -> str | None:
    """A C compiler, where the C library is GNU's."""
    return shutil.which("cc") if sys.platform == "linux" and Path("/proc/self/fd").exists() else None


def preloaded(folder: Path) -> dict[str, str]:
    """The variable of a process in which calls can be made to fail; the library is built in a folder."""
    library = folder / "calls.so"
    subprocess.run([str(compiler()), "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


class Calls:
    """The library, in a process that was started with it. In the block calls on what lies in a folder count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = ctypes.CDLL(None)
        self._library.calls_hit.restype = ctypes.c_char_p
        self._library.calls_count.restype = ctypes.c_long

    def __enter__(self) -> Calls:
        self._library.calls_watch(os.fsencode(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._library.calls_watch(b"")

    def fail(self, at: int, error: int, *, on: bool = False) -> None:
        """Let the call of this number fail; with `on`, from there on all that take room. 0: none."""
        self._library.calls_fail(ctypes.c_long(at), ctypes.c_long(error), int(on))

    def record(self, descriptor: int) -> None:
        """Write down what changes the folder, until it is told -1."""
        self._library.calls_record(descriptor)

    @property
    def count(self) -> int:
        """Calls since `fail`."""
        return int(self._library.calls_count())

    @property
    def hit(self) -> tuple[str, str] | None:
        """The name and path of the call that failed."""
        name, _, path = os.fsdecode(self._library.calls_hit()).partition("\t")
        return (name, path) if name else None
