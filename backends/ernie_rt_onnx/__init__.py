"""ONNX: export of portable models, and the backend that runs graphs in ONNX Runtime."""

from __future__ import annotations

import os

from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl
from ernie_rt_onnx.library import library_path

__all__ = ["PLUGIN_API", "ernie_rt_backends", "library_path"]

# ONNX Runtime looks at it when it is imported; without it, it keeps an id of the device and counts of use, to be sent.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="onnx",
            target="ernie_rt_onnx.backend:OnnxBackend",
            summary="ONNX Runtime, with kernels of ours for quantised weights"
            if library_path()
            else "ONNX Runtime, with stock operators alone: no C++ compiler was there when it was installed",
            dtypes={"cpu": ("float32", "float16"), "cuda": ("bfloat16", "float16")},
            requires=("onnx>=1.21", "protobuf>=4.25", "onnxruntime>=1.31 | onnxruntime-gpu>=1.31"),
            hint="pip install 'ernie-rt[onnx]' (for the CPU) or 'ernie-rt[onnx-gpu]'",
            conformance="ernie_rt_onnx:conformance.json",
            exporter="ernie_rt_onnx.export:export",
            verifier="ernie_rt_onnx.verify:verify",
            planner="ernie_rt_onnx.planner:OnnxPlanner",
        )
    ]
