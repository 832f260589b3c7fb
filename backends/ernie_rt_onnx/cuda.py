"""What ONNX Runtime's CUDA provider needs of a machine, and whether it is there, before any session is made."""

from __future__ import annotations

import ctypes
import io
import sys
from contextlib import redirect_stdout
from typing import Final

import onnxruntime as ort

from ernie_rt.contract.drivers import nvidia_driver, nvidia_gpus
from ernie_rt_onnx.provider import Provider

CUDA: Final = "CUDAExecutionProvider"
LIBRARIES: Final = ("libcublasLt.so.{0}", "libcublas.so.{0}", "libcudart.so.{0}", "libcurand.so.10", "libcudnn.so.9")
"""What the provider is linked against, and cuDNN, which it loads for a maximum over an axis; {0} is CUDA's version."""


def devices() -> tuple[str, ...]:
    """The GPUs that a session can be made for: cuda:0, …"""
    return () if obstacle() else tuple(f"cuda:{index}" for index in range(nvidia_gpus()))


def lacking() -> str | None:
    """What keeps ONNX Runtime from computing on a GPU here, and what helps, in one line; None where nothing does."""
    found = obstacle()
    return None if found is None else ": ".join(filter(None, found))


def obstacle() -> tuple[str, str] | None:
    """What keeps ONNX Runtime from computing on a GPU here, and the command that helps, if one does.

    It would say less itself: it lists the provider on machines without a GPU, and where a library is missing it warns,
    and computes on the CPU.
    """
    if CUDA not in ort.get_available_providers():
        seen = f"onnxruntime {ort.__version__} was built without CUDA"
        return seen, "pip uninstall -y onnxruntime && pip install 'ernie-rt[onnx-gpu]'"
    if nvidia_gpus() == 0:
        return "no GPU of NVIDIA with its driver was found (`nvidia-smi` should name one)", ""
    absent = _absent_libraries()
    if absent:
        seen = f"its CUDA provider needs {', '.join(absent)}, which cannot be loaded"
        return seen, f"pip install 'onnxruntime-gpu[cuda,cudnn]' 'nvidia-cublas~={_cuda_version()}.0'"
    return None


def provider(device: str) -> Provider:
    """The CUDA provider on a device such as cuda:1."""
    return Provider(
        CUDA,
        "cuda",
        index_of(device),
        {
            "device_id": str(index_of(device)),
            "use_tf32": "0",  # it would leave the router 10 bits
            "arena_extend_strategy": "kSameAsRequested",  # not powers of two, which would be up to twice as much
        },
    )


def index_of(device: str) -> int:
    """1 of cuda:1."""
    return int(device.partition(":")[2])


def free_memory(device: str) -> int | None:
    """Bytes that a device such as cuda:1 has left, by its driver; None where that does not say."""
    driver = nvidia_driver()
    if driver is None:
        return None
    handle, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuDeviceGet(ctypes.byref(handle), index_of(device)):
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle):
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(handle)
    return None if failed else free.value


def _absent_libraries() -> list[str]:
    """Those that the loader finds neither by itself nor in NVIDIA's wheels; only Linux is asked."""
    with redirect_stdout(io.StringIO()):  # it prints what it does not find
        ort.preload_dlls()
    if sys.platform != "linux":
        return []
    return [name for name in (each.format(_cuda_version()) for each in LIBRARIES) if not _loads(name)]


def _cuda_version() -> str:
    """13 of 13.0: that of the libraries which this ONNX Runtime is linked against."""
    version: str = ort.cuda_version
    return version.partition(".")[0]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
