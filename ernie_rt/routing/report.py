"""A routing map with what a person has to know of it, and its JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ernie_rt.display import printable
from ernie_rt.routing.data import Balance, ExpertLoad, Load, Routes, Routing
from ernie_rt.routing.pictures import Picture

SCHEMA: Final = 1
"""Of the JSON, which docs/routing.md describes; raised when a field changes its meaning."""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What `model` did with one text or several, on a backend.

    Of one text `routing` has every token, `pieces` are these as text, and `pictures` what some of them show.
    """

    model: str
    backend: str
    device: str
    dtype: str
    load: Load
    routing: Routing | None = None
    pieces: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def about(self) -> str:
        """`demo on onnx, cpu, float32: 18 tokens`, on one line; a folder's name may be a stranger's."""
        texts = f"{_counted(self.load.texts, 'text')}, " if self.routing is None else ""
        tokens = _counted(self.load.tokens, "token")
        return f"{printable(self.model)} on {self.backend}, {self.device}, {self.dtype}: {texts}{tokens}"

    @property
    def largest(self) -> float:
        """The largest share of tokens that any expert has: where the scale of a map ends."""
        return max((float(load.shares.max()) for load in self.load.routers), default=0.0)

    def to_json(self) -> dict[str, Any]:
        tokens = None
        if self.routing is not None:
            of_routers = [_routes_json(routes) for routes in self.routing.routers]
            tokens = [
                {"id": int(id), "text": piece, "routes": [routes[place] for routes in of_routers]}
                for place, (id, piece) in enumerate(zip(self.routing.ids, self.pieces, strict=True))
            ]
        return {
            "schema": SCHEMA,
            "model": self.model,
            "backend": self.backend,
            "device": self.device,
            "dtype": self.dtype,
            "texts": self.load.texts,
            "token_count": self.load.tokens,
            "routers": [_load_json(load) for load in self.load.routers],
            "tokens": tokens,
            "items": [picture.to_json() for picture in self.pictures],
        }


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _load_json(load: ExpertLoad) -> dict[str, Any]:
    bias = None
    if load.unbiased is not None:
        bias = {
            "moved": load.moved,
            "moved_share": load.moved_share,
            "counts_without": load.unbiased.tolist(),
            **{f"{name}_without": value for name, value in _balance_json(Balance.of(load.unbiased)).items()},
        }
    return {
        "scope": load.scope,
        "layer": load.layer,
        "pool": load.pool,
        "experts": len(load.counts),
        "tokens": load.tokens,
        "counts": load.counts.tolist(),
        "weights": np.round(load.weights, 6).tolist(),
        "largest_share": float(load.shares.max()),
        **_balance_json(load.balance),
        "unused": load.unused.tolist(),
        "bias": bias,
    }


def _balance_json(balance: Balance) -> dict[str, float | None]:
    named = {"entropy": balance.entropy, "variation": balance.variation, "peak": balance.peak}
    return {name: None if math.isnan(value) else value for name, value in named.items()}


def _routes_json(routes: Routes) -> list[dict[str, Any] | None]:
    """Of each token; None for one that the router's pool does not serve."""
    weights = np.round(routes.weights.astype(np.float64), 7).tolist()
    without = [None] * len(weights) if routes.unbiased is None else routes.unbiased.tolist()
    rows = zip(routes.ids.tolist(), weights, without, strict=True)
    return [
        {"experts": ids, "weights": each, "experts_without_bias": other} if max(ids) >= 0 else None
        for ids, each, other in rows
    ]
