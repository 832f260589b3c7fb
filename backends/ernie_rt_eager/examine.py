"""What keeps PyTorch from its best on this machine."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from typing import Final

import torch

from ernie_rt.contract import Finding, Target
from ernie_rt.contract.drivers import newest_cuda, nvidia_gpus
from ernie_rt_eager.ops import DTYPES
from ernie_rt_eager.products import cpu_multiplies

FALLBACK: Final = "PYTORCH_ENABLE_MPS_FALLBACK"
AMPERE: Final = (8, 0)
"""The compute capability from which on GPUs of NVIDIA multiply bfloat16."""


def examine(target: Target) -> Iterator[Finding]:
    kind = target.device.partition(":")[0]
    if kind == "cpu":
        yield from _products(target)
        yield from _unused_gpu()
    old = kind == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(target.device) < AMPERE
    if old and target.dtype == "bfloat16":
        yield Finding(
            "slow",
            f"{torch.cuda.get_device_name(target.device)} multiplies no bfloat16",
            "bfloat16 is emulated there, several times slower than float16",
            advice="Ask for --dtype float16",
        )
    if kind == "mps" and os.environ.get(FALLBACK) == "1":
        costs = "what Metal has no kernel for runs on the CPU, and nothing says so"
        yield Finding("slow", f"{FALLBACK}=1", costs, f"unset {FALLBACK}")


def _products(target: Target) -> Iterator[Finding]:
    """Whether the CPU multiplies in the target's dtype."""
    if not cpu_multiplies(DTYPES[target.dtype]):
        yield Finding(
            "remark",
            f"this processor has no multiply-adds in {target.dtype}",
            "products of several tokens go through float32, and those of one token take longer than in float32",
            advice="Where memory allows, --dtype float32 is faster; --weights int8 (onnx) needs less memory and time",
        )


def _unused_gpu() -> Iterator[Finding]:
    """Why PyTorch finds no GPU where the driver has some."""
    if nvidia_gpus() == 0 or torch.cuda.device_count() > 0:
        return
    costs = "eager computes on the CPU, and cudagraph not at all, though this machine has a GPU of NVIDIA"
    if torch.version.cuda is None:
        # PyTorch's builds for Linux on PyPI are those for CUDA.
        version = distribution("torch").version.partition("+")[0]
        command = f"pip install --force-reinstall {shlex.quote(f'torch=={version}')}" if sys.platform == "linux" else ""
        advice = "" if command else "Install a build for CUDA: pytorch.org says how"
        yield Finding("slow", f"PyTorch {torch.__version__} was built without CUDA", costs, command, advice)
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        seen = f"CUDA_VISIBLE_DEVICES={hidden!r} leaves PyTorch no GPU"
        yield Finding("slow", seen, costs, "unset CUDA_VISIBLE_DEVICES")
        return
    newest = newest_cuda()
    seen = f"PyTorch {torch.__version__} was built for CUDA {torch.version.cuda}, and finds no GPU"
    if newest:
        seen += f": the driver knows CUDA up to {newest}"
    advice = "Update the driver, or install a PyTorch built for a CUDA that it knows: pytorch.org says how"
    yield Finding("slow", seen, costs, advice=advice)


def notes(target: Target) -> tuple[str, ...]:
    """Which PyTorch computes, on what, and in which dtype it multiplies."""
    device = torch.device(target.device)
    if device.type == "cuda":
        built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return torch.cuda.get_device_name(device), f"torch {torch.__version__} for {built}"
    version = f"torch {torch.__version__}"
    if device.type == "mps":
        return version, platform.processor()
    count = target.threads or torch.get_num_threads()
    products = f"{target.dtype} products {'natively' if cpu_multiplies(DTYPES[target.dtype]) else 'through float32'}"
    return version, f"{count} thread{'s' * (count != 1)}", products
