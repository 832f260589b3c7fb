"""All kernels of a step, compiled for GPUs that are not there.

OTHER_TRITON names a folder with another Triton, to compile by that one too: pip install --target FOLDER triton==3.6.0
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def compiled(*arguments: str, triton: str | None = None) -> list[dict[str, object]]:
    """In a process of its own, where kernels are compiled and not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if triton is not None:
        environment["PYTHONPATH"] = triton
    command = [sys.executable, "-m", "ernie_rt_cudagraph.ahead_of_time", "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def check(found: list[dict[str, object]], spilled: int = 0) -> None:
    assert {"qkv_kernel", "attention_kernel", "linear_kernel", "_begin", "head_kernel"} <= {k["kernel"] for k in found}
    for kernel in found:
        assert int(str(kernel["spilled"])) <= spilled, kernel
        assert kernel["shared"] <= 99 << 10, kernel  # what a program may have on every GPU since Ampere
        if str(kernel["kernel"]) in READING:
            assert kernel["wide_loads"] > 0, kernel


READING = {
    "qkv_kernel", "attention_kernel", "linear_kernel", "swiglu_kernel", "_begin", "_gate_up", "_down", "_gate_up_tiles",
    "_down_tiles", "head_kernel",
}  # fmt: skip
"""Kernels whose time is that of reading weights, or the cache."""


def test_two_models_on_one_kind_of_gpu() -> None:
    found = compiled("--model", "21B-A3B", "--model", "VL-28B-A3B", "--rows", "1", "--sm", "90")
    check(found)
    assert "rope_rows_kernel" in {kernel["kernel"] for kernel in found}


@pytest.mark.long
def test_all_models_on_all_kinds() -> None:
    check(compiled())
    check(compiled("--pdl", "--sm", "90", "--sm", "120"))


@pytest.mark.long
def test_by_another_triton() -> None:
    if (folder := os.environ.get("OTHER_TRITON")) is None:
        pytest.skip("OTHER_TRITON names no folder: see the top of this file")
    check(compiled("--model", "21B-A3B", "--model", "0.3B", "--sm", "90", triton=folder), spilled=8)
