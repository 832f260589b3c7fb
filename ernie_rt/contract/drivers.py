"""NVIDIA's driver, asked itself: what GPUs there are, whatever libraries make of them."""

from __future__ import annotations

import ctypes
from typing import Final

NAMES: Final = ("libcuda.so.1", "nvcuda.dll")


def nvidia_driver() -> ctypes.CDLL | None:
    """The driver, ready to be asked; None where there is none, or it finds no GPU."""
    for name in NAMES:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        return driver if driver.cuInit(0) == 0 else None
    return None


def nvidia_gpus() -> int:
    """How many GPUs the driver has."""
    driver, count = nvidia_driver(), ctypes.c_int()
    return 0 if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


def newest_cuda() -> str:
    """The newest version of CUDA that the driver can run, such as `13.0`; empty where it does not say."""
    driver, number = nvidia_driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)):
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
