"""The fast backend for one NVIDIA GPU: blocks fused into Triton kernels, a step of decodes one captured CUDA graph."""

from __future__ import annotations

import os

from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl

__all__ = ["PLUGIN_API", "ernie_rt_backends"]


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # slowly, on a CPU: for tests
    return [
        BackendInfo(
            name="cudagraph",
            target="ernie_rt_cudagraph.backend:CudaGraphBackend",
            summary="Fused Triton kernels in CUDA graphs: NVIDIA GPUs from Ampere on",
            dtypes={"cpu": ("float32", "bfloat16", "float16")}
            if interpreted
            else {"cuda": ("bfloat16", "float16", "float32")},
            requires=("torch>=2.8", "triton>=3.6"),
            hint="pip install 'ernie-rt[cuda]'",
            conformance="ernie_rt_cudagraph:conformance.json",
            planner="ernie_rt_cudagraph.planner:CudaGraphPlanner",
        )
    ]
