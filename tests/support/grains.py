"""Backends of the reference's own functions, in float32, that differ in how large their pieces are."""

from __future__ import annotations

from ernie_rt.contract import SimpleBackend
from ernie_rt.graph.ops import OPS
from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl
from ernie_rt.reference.ops import MEANINGS

__all__ = ["PLUGIN_API", "ernie_rt_backends"]


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [
        BackendInfo(kind.__name__.lower(), f"{__name__}:{kind.__name__}", "", {"cpu": ("float32",)})
        for kind in (Primitives, Fused, Blocks)
    ]


class Primitives(SimpleBackend):
    functions = {name: MEANINGS[name] for name, op in OPS.items() if op.level == "primitive"}  # noqa: RUF012


class Fused(SimpleBackend):
    """Composites, the router and its experts in one."""

    functions = {  # noqa: RUF012
        name: MEANINGS[name]
        for name, op in OPS.items()
        if op.level != "block" and name not in ("moe_route", "moe_experts")
    }


class Blocks(SimpleBackend):
    functions = {name: MEANINGS[name] for name, op in OPS.items() if op.level == "block"}  # noqa: RUF012
