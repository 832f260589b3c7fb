"""yourchip, announced to ernie-rt. Nothing heavy is imported here; the backend is named by a string."""

from ernie_rt.hooks import BackendInfo, hookimpl

PLUGIN_API = 2  # the contract that this was written for


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="yourchip",
            target="ernie_rt_yourchip.backend:Backend",
            summary="27 primitives in NumPy",
            dtypes={"cpu": ("float32",)},
            conformance="ernie_rt_yourchip:conformance.json",
        )
    ]
