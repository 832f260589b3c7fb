"""What a backend handed back of its routers, as a Routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import BackendError
from ernie_rt.graph.routers import Router
from ernie_rt.routing.data import Int32, Routes, Routing, fixed


def read_routing(
    backend: str, ids: Sequence[int], routers: Sequence[Router], found: Mapping[str, npt.NDArray[Any]]
) -> Routing:
    """The routing of N tokens out of the taps of all routers; BackendError for what no router can have chosen.

    A token counts for the pool that serves it, whatever the others' routers would have chosen for it.
    """
    routes = []
    for router in routers:
        lacking = [tap for tap in router.taps if tap not in found]
        if lacking:
            raise BackendError(
                f"backend {backend!r} hands back no taps",
                where=lacking[0],
                hint="docs/backends.md says how that is done; the backend 'reference' shows the routing meanwhile",
            )
        chosen = _ids(backend, found[router.ids], router, len(ids))
        unbiased = None
        if router.biased:
            unbiased = fixed(np.where(chosen < 0, chosen, _ids(backend, found[router.unbiased], router, len(ids))))
        weights = found[router.weights].astype(np.float32)
        if weights.shape != chosen.shape:
            raise BackendError(
                f"backend {backend!r} weighs experts that it did not choose",
                where=router.scope,
                expected=list(chosen.shape),
                found=list(weights.shape),
            )
        if not np.isfinite(weights).all():
            raise BackendError(
                f"backend {backend!r} weighs experts by what is no number",
                where=router.scope,
                hint="Show the routing with `--backend reference` to compare",
            )
        weights = fixed(np.where(chosen < 0, np.float32(0), weights))
        routes.append(Routes(router.scope, router.experts, chosen, weights, unbiased))
    routes.sort(key=lambda each: each.pool)  # in each of which they come in the order in which they run
    return Routing(fixed(np.array(ids, np.int32)), tuple(routes))


def _ids(backend: str, given: npt.NDArray[Any], router: Router, tokens: int) -> Int32:
    ids = given.astype(np.int32)
    if ids.shape != (tokens, router.top_k) or not ((ids >= -1) & (ids < router.experts)).all():
        raise BackendError(
            f"backend {backend!r} sends tokens to experts that are not there",
            where=router.scope,
            expected=f"[{tokens}, {router.top_k}] ids of 0 to {router.experts - 1}",
            found=f"{list(ids.shape)} ids" + (f" of {ids.min()} to {ids.max()}" if ids.size else ""),
        )
    return fixed(ids)
