"""Reports of routings that no model made: small ones, and one of the shape of 21B-A3B."""

from __future__ import annotations

import numpy as np

from ernie_rt.routing.data import Routes, Routing
from ernie_rt.routing.pictures import pictures_of
from ernie_rt.routing.report import Report
from ernie_rt.vision.item import Item
from support.sighted import picture

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


def seeing(tokens_before: int = 4, tokens_after: int = 3, item: Item | None = None) -> Report:
    """Two layers of two pools, of which one serves the tokens of a picture (of 2 by 3, where none is given)."""
    item = item or picture(2, 3)
    start, tokens = tokens_before, tokens_before + item.tokens + tokens_after
    shows = np.zeros(tokens, np.bool_)
    shows[start : start + item.tokens] = True
    rng, routers = np.random.default_rng(5), []
    for pool, served in (("", ~shows), ("vision.", shows)):
        for layer in (1, 2):
            ids = np.argsort(rng.normal(size=(tokens, 8)), -1)[:, :2].astype(np.int32)
            weights = rng.random((tokens, 2)).astype(np.float32)
            weights /= weights.sum(-1, keepdims=True)
            ids[~served], weights[~served] = -1, 0
            unbiased = np.where(ids < 0, ids, (ids + 1) % 8).astype(np.int32)
            routers.append(Routes(f"layers.{layer}.mlp.{pool}route", 8, ids, weights, unbiased))
    routing = Routing(np.arange(tokens, dtype=np.int32), tuple(routers))
    pieces = tuple(f"t{i}" for i in range(tokens))
    return Report("a model", "eager", "cpu", "float32", routing.load, routing, pieces, pictures_of([(start, item)]))
