"""The library of operators in C++ (the folder `ops`), where it was built."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

KERNELS: Final = "ERNIE_RT_KERNELS"
"""An environment variable: the kernels to use, of those that the processor can run, or `none`."""


@cache
def library_path() -> Path | None:
    """The file, if this installation has one: for `register_custom_ops_library` of any session, so that it runs the
    experts of exported models. It imports nothing heavy."""
    folder = Path(__file__).parent
    return next((path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_ops{suffix}").exists()), None)


class Reads(ctypes.Structure):
    """Bytes of experts that operators chose, and how many of them were not in memory."""

    _fields_ = (("chosen", ctypes.c_uint64), ("missing", ctypes.c_uint64))
    chosen: int
    missing: int


@cache
def _open(path: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(path))
        library.ernie_rt_kernels.restype = ctypes.c_char_p
        library.ernie_rt_take_reads.restype = Reads
    except (OSError, AttributeError):  # of another processor or system, or of something else
        return None
    return library


def kernels() -> str | None:
    """The name of the kernels that its operators use here, `avx512` for one. None without a library."""
    library = _library()
    name = None if library is None else library.ernie_rt_kernels()
    return None if name is None else str(name, "ascii")


def take_reads() -> Reads:
    """Those of the operators that ran on this thread since the last call."""
    library = _library()
    return Reads() if library is None else library.ernie_rt_take_reads()


def _library() -> ctypes.CDLL | None:
    path = library_path()
    return None if path is None or os.environ.get(KERNELS) == "none" else _open(path)
