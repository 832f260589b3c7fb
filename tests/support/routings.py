"""Reports of routings that no model made: small ones, and one of the shape of 21B-A3B."""

from __future__ import annotations

import numpy as np

from ernie_rt.routing.data import Routes, Routing
from ernie_rt.routing.report import Report

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=y>&\"'\x1b[2J"
PIECES = ("老师", " the", "\n", "公里", "<0xE4>", "")


def made(
    tokens: int = 6,
    layers: tuple[int, ...] = (1, 2),
    experts: int = 8,
    top_k: int = 2,
    biased: bool = True,
    summed: bool = False,
    model: str = "a model",
    pieces: tuple[str, ...] = PIECES,
) -> Report:
    rng = np.random.default_rng(4)
    routers = []
    for layer in layers:
        scores = rng.normal(size=experts) + rng.normal(size=(tokens, experts))
        scores[:, -1] = -np.inf  # never used
        ids, unbiased = (
            np.argsort(-(scores + bias), -1)[:, :top_k].astype(np.int32) for bias in (rng.normal(size=experts), 0)
        )
        weights = rng.random((tokens, top_k)).astype(np.float32)
        weights /= weights.sum(-1, keepdims=True)
        routers.append(Routes(f"layers.{layer}.mlp.route", experts, ids, weights, unbiased if biased else None))
    routing = Routing(np.arange(tokens, dtype=np.int32), tuple(routers))
    about = model, "eager", "cpu", "float32"
    if summed:
        return Report(*about, routing.load + routing.load)
    return Report(*about, routing.load, routing, tuple(pieces[i % len(pieces)] for i in range(tokens)))


def large() -> Report:
    """27 layers of 64 experts, 60 tokens."""
    return made(60, tuple(range(1, 28)), 64, 6)
