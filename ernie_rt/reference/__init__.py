"""Every op in NumPy float64, and the backend made of it."""

from __future__ import annotations

from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl

__all__ = ["PLUGIN_API", "ernie_rt_backends"]


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="reference",
            target="ernie_rt.reference.backend:ReferenceBackend",
            summary="NumPy in float64: what every op means. Slow; the judge of the others",
            dtypes={"cpu": ("float32", "float64")},
            conformance="ernie_rt.reference:conformance.json",
            planner="ernie_rt.reference.planner:ReferencePlanner",
        )
    ]
