"""The filters of docs/sampling.md: which tokens of a row may be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.sampling.philox import memory

Row = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32] | npt.NDArray[np.float64]

UNIT: Final = 2.0**30
"""The weight of the likeliest token."""
ROUNDING: Final = 2.0**52
"""Added to a smaller number and taken away again, it leaves the nearest whole one, the even one of two."""
WEIGHTLESS: Final = 22.0
"""A token so far below the best one has weight 0: exp(-22) * 2^30 < 1/2."""
ROUGHNESS: Final = 1e-5
"""More than the relative error of a sum of float32 exponentials: each has one of some 2e-6, 64 of them one after the
other add 4e-6, and such sums in pairs another 1e-6."""
FAR: Final = 15.0
"""So far below the best score are tokens that may count as nearly nothing."""
MOST_NOISE: Final = np.float32(22.9)
LEAST_NOISE: Final = np.float32(-3.2)
FEW: Final = 512
"""So many candidates are each given their noise."""


class Care(Enum):
    """How well the limit of top-p is known: nearly always well enough to tell whether the token drawn is kept."""

    LEAST = 0
    """Sums of float32, and a bound for tokens far below the best one."""
    MORE = 1
    """Sums of float32."""
    MOST = 2
    """Exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tokens of one row: all that the filters keep, and with top-p perhaps worse ones, which `keeps` tells apart.

    A token that is better than one of them is one of them. `ids` ascend; None stands for every token, of more than FEW.
    `scores` are after temperature. With top-p a token is kept if the better ones weigh less than a limit, which lies
    between `low` and `high`. The `weights` are exact in float64, and in float32 rough and divided by UNIT.
    """

    ids: Places | None  # [n]
    scores: Row  # [n]
    weights: Weights | None = None  # [n]
    low: float = math.inf
    high: float = math.inf

    def better(self, place: int) -> Mask:
        """True for those that are better than the one at this place of the arrays."""
        mask: Mask = self.scores > self.scores[place]
        mask[:place] |= self.scores[:place] == self.scores[place]
        return mask

    def keeps(self, better: Mask) -> bool | None:
        """Whether top-p keeps a token, given those that are better; None if the weights are too rough to tell."""
        assert self.weights is not None
        least, most = _sum(self.weights * better.astype(np.float32))
        return True if most < self.low else False if least >= self.high else None

    def keeps_all(self, places: Places) -> bool:
        """Whether these, the best ones, are surely kept."""
        return self.weights is None or _sum(self.weights[places])[1] < self.low


class Space:
    """Memory for what is computed of a row of logits, used for one row after the other."""

    def __init__(self, width: int) -> None:
        self._width = width

    @cached_property
    def scores(self) -> Row:
        return np.empty(self._width, np.float32)

    @cached_property
    def weights(self) -> Row:
        return np.empty(self._width, np.float32)

    @cached_property
    def groups(self) -> npt.NDArray[np.uint64]:
        return np.arange(len(self.words), dtype=np.uint64)

    @cached_property
    def words(self) -> npt.NDArray[np.uint32]:
        return np.empty((-(-self._width // 4), 4), np.uint32)

    @cached_property
    def counters(self) -> npt.NDArray[np.uint64]:
        return memory(len(self.words))


def candidates(
    row: npt.NDArray[Any], temperature: np.float32, top_k: int, top_p: float, min_p: float, space: Space, care: Care
) -> Candidates | None:
    """What may be drawn of a row of logits; None if the best is no number.

    When it is every token, its scores may lie in the row or in the space.
    """
    scores: Row = row.astype(np.float32, copy=False)
    if temperature != 1:
        scores = np.divide(scores, temperature, out=space.scores[: len(row)])
    best = scores.max()
    if not np.isfinite(best):
        return None
    ids: Places | None = None
    if 0 < top_k < len(scores):
        ids = the_best(scores, top_k)
    if min_p > 0:
        if ids is None:
            ids = np.flatnonzero(_within(scores, best, min(1 - math.log(min_p), WEIGHTLESS)))
        ids = ids[whole_weights(scores[ids], best) >= min_p * UNIT]
    pool = scores if ids is None else scores[ids]
    if top_p < 1:
        nucleus = _nucleus(pool, best, top_p, space, care)
        return nucleus if ids is None else replace(nucleus, ids=ids if nucleus.ids is None else ids[nucleus.ids])
    return Candidates(ids, pool) if ids is not None else _within_reach(scores, best)


def the_best(scores: npt.NDArray[Any], k: int) -> Places:
    """The places, ascending, of the k best of more scores, the first among equals; fewer when the rest is masked; none
    with NaN.
    """
    depth, columns = len(scores) // (8 * k), 8 * k
    near: Places | None = None
    if depth >= 4:  # k columns have a best score each, so the k-th best of those is at most that of all
        heads = scores[: depth * columns].reshape(depth, columns).max(0)
        near = np.flatnonzero(scores >= np.partition(heads, columns - k)[columns - k])
        if len(near) < k:  # which NaN alone brings about
            return near
        scores = scores[near]
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > kth)
    equal = np.flatnonzero(scores == kth)[: k - len(above) if kth > -np.inf else 0]
    places = np.sort(np.concatenate([above, equal]))
    return places if near is None else near[places]


def whole_weights(scores: Row, best: np.float32) -> npt.NDArray[np.float64]:
    """The weights of the specification: whole numbers, whose sums are exact."""
    weights: npt.NDArray[np.float64] = np.exp(scores.astype(np.float64) - np.float64(best)) * UNIT
    weights += ROUNDING  # np.rint does the same, ten times slower
    weights -= ROUNDING
    return weights


def _nucleus(pool: Row, best: np.float32, top_p: float, space: Space, care: Care) -> Candidates:
    """Tokens of the pool, in which their ids are places: all that top-p keeps, and perhaps more."""
    if care is Care.LEAST:
        found = _nucleus_of_steep(pool, best, top_p)
        if found is not None:
            return found
    weights: Weights
    if care is Care.MOST:
        weights = whole_weights(pool, best)
    else:
        weights = np.subtract(pool, best, out=space.weights[: len(pool)])
        np.exp(weights, out=weights)
    found = _heaviest(pool, weights, 0.0, best, top_p, WEIGHTLESS)
    assert found is not None, "what weighs nothing is not kept"
    return found


def _nucleus_of_steep(pool: Row, best: np.float32, top_p: float) -> Candidates | None:
    """`_nucleus` where most scores are far below the best one, and count as a bound on their sum; None elsewhere.

    The others are gathered by eights, which takes less time than one by one.
    """
    sample = pool[:: 1 + len(pool) // 1024]
    if 12 * np.count_nonzero(_within(sample, best, FAR)) > len(sample):
        return None
    padded = np.append(pool, np.full(-len(pool) % 8, -np.inf, np.float32)) if len(pool) % 8 else pool
    near = np.flatnonzero(_within(padded, best, FAR).view(np.uint64) != 0)
    scores = padded.reshape(-1, 8).take(near, 0).reshape(-1)
    beyond = (len(padded) - len(scores)) * (math.exp(-FAR) + 0.5 / UNIT)
    found = _heaviest(scores, np.exp(scores - best), beyond, best, top_p, FAR)
    if found is None or found.ids is None:
        return None
    return replace(found, ids=8 * near[found.ids >> 3] + (found.ids & 7))


def _heaviest(
    scores: Row, weights: Weights, beyond: float, best: np.float32, top_p: float, farthest: float
) -> Candidates | None:
    """The best tokens that surely weigh as much as top-p asks for; None if they reach farther than they may.

    Where they are many, to find them takes more time than it saves, and all are returned.
    """
    least, most = _sum(weights)
    low, high = top_p * least, top_p * (most + beyond)
    # Two guesses of how far down to look: by what is heavy in a sample, and by how much all is heavier than the best.
    step, tail = 1 + len(scores) // 1024, -math.log1p(-top_p)
    heavy = step * float(np.dot(weights[::step], np.minimum(best - scores[::step], WEIGHTLESS))) / most
    whole = math.log(most / (UNIT if weights.dtype == np.float64 else 1.0))
    reach = min(heavy + 1.4 * tail, whole + tail + 1.5, farthest)
    while True:
        near = _within(scores, best, reach)
        count = np.count_nonzero(near)
        if farthest == WEIGHTLESS and count > max(FEW, len(scores) // 10):
            return Candidates(None, scores, weights, low, high)
        found = np.flatnonzero(near)
        taken = weights[found]
        if _sum(taken)[0] >= high or reach >= WEIGHTLESS:
            return Candidates(found, scores[found], taken, low, high)
        if reach >= farthest:
            return None
        reach = min(reach + 1.5, farthest)


def _within_reach(scores: Row, best: np.float32) -> Candidates:
    """Of all tokens those that noise can make the best, if they are few."""
    least = best - np.float32(26.2)
    while least + MOST_NOISE >= best + LEAST_NOISE:  # large scores lie farther apart
        least = np.nextafter(least, np.float32(-np.inf))
    near = scores >= least
    if len(near) > FEW and 8 * np.count_nonzero(near) > len(near):
        return Candidates(None, scores)
    ids = np.flatnonzero(near)
    return Candidates(ids, scores[ids])


def _within(scores: Row, best: np.float32, reach: float) -> Mask:
    """True for all scores of at least best - reach, and for some that miss it by a rounding error.

    Rounding keeps the order: a score at or above the exact border is at or above the rounded one.
    """
    mask: Mask = scores >= best - np.float32(reach)
    return mask


def _sum(weights: Weights) -> tuple[float, float]:
    """Two numbers between which the sum of the true weights lies."""
    columns = len(weights) // 64
    total = float(weights[: 64 * columns].reshape(64, columns).sum(0).sum()) + float(weights[64 * columns :].sum())
    error = ROUGHNESS * total + len(weights) / 2 / UNIT if weights.dtype == np.float32 else 0.0
    return total - error, total + error
