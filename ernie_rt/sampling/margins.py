"""By how much a token was preferred to the others that could have been chosen."""

from __future__ import annotations

import numpy as np

from ernie_rt.sampling.candidates import Care, Places, Row, Space, candidates
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.state import SamplerState


def runner_up(scores: Row, state: SamplerState, token: int) -> tuple[int, float] | None:
    """The best of the other tokens, and how far it lies behind; None when no other could have been chosen.

    `scores` are those of the row after penalties, biases and masks.
    """
    ids, compared = contest(scores, state)
    others = np.where(ids == token, -np.inf, compared)
    best = int(others.argmax())
    if others[best] == -np.inf:
        return None
    return int(ids[best]), float(compared[ids == token][0]) - float(compared[best])


def contest(scores: Row, state: SamplerState) -> tuple[Places, Row]:
    """The tokens that could be chosen, and for each what the largest of wins: its score or, with a temperature, that
    over the temperature and its noise."""
    params = state.params
    if params.temperature == 0:
        ids = np.flatnonzero(scores > -np.inf)
        return ids, scores[ids]
    found = candidates(
        scores, np.float32(params.temperature), params.top_k, params.top_p, params.min_p, Space(len(scores)), Care.MOST
    )
    assert found is not None, "a token was chosen"
    ids = np.arange(len(scores)) if found.ids is None else found.ids
    kept = found.scores > -np.inf
    if found.weights is not None:
        order = np.argsort(-found.scores, kind="stable")
        weights = found.weights[order].astype(np.float64)
        before = np.cumsum(weights) - weights
        kept[order] &= before < found.low
    ids = ids[kept]
    return ids, found.scores[kept] + noise_at(ids, np.uint64(state.seed), np.uint64(state.position))
