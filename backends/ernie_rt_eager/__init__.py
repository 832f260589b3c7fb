"""The plain backend: eager PyTorch, on the CPU and on any GPU that PyTorch knows."""

from __future__ import annotations

from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl

__all__ = ["PLUGIN_API", "ernie_rt_backends"]


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="eager",
            target="ernie_rt_eager.backend:EagerBackend",
            summary="PyTorch, op by op: CPU and any GPU that PyTorch knows",
            dtypes={
                "cpu": ("float32", "bfloat16", "float16"),
                "cuda": ("bfloat16", "float16", "float32"),
                "mps": ("float16", "bfloat16", "float32"),
            },
            requires=("torch>=2.8",),
            hint="pip install 'ernie-rt[torch]'",
            conformance="ernie_rt_eager:conformance.json",
            planner="ernie_rt_eager.planner:EagerPlanner",
        )
    ]
