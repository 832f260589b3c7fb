"""From a row of logits to a token, as docs/sampling.md specifies it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.philox import gumbel, gumbel_below
from ernie_rt.sampling.state import SamplerState

Row = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]

UNIT: Final = 2.0**30
"""The weight of the likeliest token."""
ROUNDING: Final = 2.0**52
"""Added to a smaller number and taken away again, it leaves the nearest whole one, the even one of two."""
WEIGHTLESS: Final = 22.0
"""A token so far below the best one has weight 0: exp(-22) * 2^30 < 1/2."""
REACHES: Final = (4.0, 5.5, 7.0, 8.0, 9.0, 10.0, 11.0, 12.5, WEIGHTLESS)
"""How far below the best score to look for what top-p keeps."""
BANDS: Final = np.float32(16)
"""Bands of scores in a difference of 1."""
ROUGHNESS: Final = 1e-5
"""More than the relative error of a sum of float32 exponentials, each with one of some 2e-6."""
BLOCK: Final = 8192
"""Scores at a time, so that what is computed of them stays in a near cache."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The log probability of a chosen token, and the likeliest tokens with theirs, best first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    token: int
    logprobs: Logprobs | None = None


def sample(row: npt.NDArray[Any], state: SamplerState) -> Sampled:
    """A token from the logits `[V]` of one sequence; its state is left for the caller to tell.

    BackendError when the row holds NaN or infinity; OptionError when the masks of the request leave no token.
    """
    params = state.params
    known = row[: state.vocab_size]
    if params.plain:
        return Sampled(_largest(known, known))
    with np.errstate(over="ignore"):  # what overflows is found where the largest is looked at
        scores = penalise(row, state)
        scores /= np.float32(params.temperature or 1)
        token = _largest(scores, known)
        if params.temperature > 0:
            token = _draw(scores, state)
    return Sampled(token, None if params.logprobs is None else _logprobs(known, token, params.logprobs))


def penalise(row: npt.NDArray[Any], state: SamplerState) -> Row:
    """A copy of the row in float32 after penalties, biases and masks."""
    params = state.params
    scores = row.astype(np.float32)
    if params.penalises:
        ids, counts = state.counted()
        values = scores[ids]
        repetition = np.float32(params.repetition_penalty)
        values = np.where(values > 0, values / repetition, values * repetition)
        values -= np.float32(params.presence_penalty) * (counts > 0).astype(np.float32)
        values -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
        scores[ids] = values
    if params.masks:
        scores[state.bias_ids] += state.biases
        scores[state.masked()] = -np.inf
        if state.allowed is not None:
            allowed = scores[state.allowed]
            scores.fill(-np.inf)
            scores[state.allowed] = allowed
    if state.vocab_size is not None:
        scores[state.vocab_size :] = -np.inf
    return scores


def keep(scores: Row, params: SamplingParams) -> Positions | None:
    """The ids, ascending, that top-k, min-p and top-p leave of scores after temperature; None for all of them."""
    ids: Positions | None = None
    best = scores.max()
    if 0 < params.top_k < len(scores):
        ids = _top_k(scores, params.top_k)
    if params.min_p > 0:
        least = params.min_p * UNIT
        if ids is None:
            ids = np.flatnonzero(_at_least(scores, best, max(math.log(params.min_p) - 1, -WEIGHTLESS)))
        ids = ids[_weights(scores[ids], best) >= least]
    if params.top_p < 1:
        kept = _nucleus(scores if ids is None else scores[ids], best, params.top_p)
        ids = kept if ids is None else ids[kept]
    return ids


def _top_k(scores: npt.NDArray[Any], k: int) -> Positions:
    """The k best, the lowest ids among equals; fewer when the rest is masked."""
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > kth)
    if kth == -np.inf:
        return above
    equal = np.flatnonzero(scores == kth)[: k - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _nucleus(scores: Row, best: np.float32, top_p: float) -> Positions:
    """The places, ascending, of what top-p keeps.

    A float32 sum tells between which two numbers the sum of all weights lies. Among the best scores, more of them until
    they are enough, the border is then where both numbers put it; only where they differ are all weights computed.
    Only the scores next to the border are sorted.
    """
    rough = float(np.exp(scores - best).sum()) * UNIT
    error = ROUGHNESS * rough + len(scores) / 2
    limits = top_p * (rough - error), top_p * (rough + error)
    for reach in REACHES:
        near = np.flatnonzero(_at_least(scores, best, -reach))
        weights = _weights(scores[near], best)
        if weights.sum() >= limits[1]:
            break
    bands = ((best - scores[near]) * BANDS).astype(np.intp)  # rounding keeps the order
    ends = np.bincount(bands, weights).cumsum()  # below 2^53, so float64 adds whole numbers exactly
    first, last = np.searchsorted(ends, limits)
    kept = bands < first
    border = np.flatnonzero(~kept & (bands <= last))
    border = border[_best_first(scores[near[border]])]
    before = weights[border].cumsum() - weights[border] + (ends[first - 1] if first else 0)
    count, most = np.searchsorted(before, limits)
    if count != most:
        blocks = range(0, len(scores), BLOCK)
        total = sum(float(_weights(scores[start : start + BLOCK], best).sum()) for start in blocks)
        count = np.searchsorted(before, top_p * total)
    kept[border[:count]] = True
    places: Positions = near[kept]
    return places


def _best_first(scores: Row) -> Positions:
    """The places of finite scores by descending score, the lowest first among equals.

    Sorts whole numbers, each a score and its place, which takes a tenth of the time of a stable `argsort`.
    """
    bits = (np.float32(0) - scores).view(np.int32)  # no score gives -0, which differs from 0 in its bits alone
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # ascending as floats and now as integers
    keys: npt.NDArray[np.int64] = bits.astype(np.int64) << 32
    keys |= np.arange(len(keys))
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys


def _weights(scores: Row, best: np.float32) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.exp(scores.astype(np.float64) - np.float64(best)) * UNIT
    weights += ROUNDING  # np.rint does the same, ten times slower
    weights -= ROUNDING
    return weights


def _at_least(scores: Row, best: np.float32, difference: float) -> npt.NDArray[np.bool_]:
    """True for all scores of at least best + difference, and for some that miss it by a rounding error."""
    # Rounding keeps the order, so a score at or above the exact border is at or above the rounded one.
    mask: npt.NDArray[np.bool_] = scores >= np.float32(np.float64(best) + difference)
    return mask


def _draw(scores: Row, state: SamplerState) -> int:
    """Gumbel-max among what the filters keep."""
    ids = keep(scores, state.params)
    if ids is None:
        return int(np.argmax(scores + gumbel_below(len(scores), state.seed, state.position)))
    return int(ids[np.argmax(scores[ids] + gumbel(ids, state.seed, state.position))])


def _largest(scores: npt.NDArray[Any], row: npt.NDArray[Any]) -> int:
    """The id of the largest score, the lowest among equals; an error when there is no number to choose."""
    token = int(np.argmax(scores))  # of several with NaN, the first that has one
    best = scores[token]
    if np.isfinite(best):
        return token
    if best == -np.inf and row.max() > -np.inf:
        raise OptionError(
            "no token is left to choose", found="every one is masked", hint="Allow more ids, or fewer bad words"
        )
    what = "NaN" if np.isnan(best) else "no finite number" if best < 0 else "infinity"
    raise BackendError(f"the logits hold {what}", hint="Run the same prompt with `--backend reference` to compare")


def _logprobs(row: npt.NDArray[Any], token: int, count: int) -> Logprobs:
    values = row.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    top = _top_k(values, count) if 0 < count < len(values) else np.arange(len(values) if count else 0)
    top = top[np.argsort(-values[top], kind="stable")]
    return Logprobs(float(values[token]), tuple((int(id), float(values[id])) for id in top))


def sample_rows(logits: Any, states: Any) -> list[Any]:
    out: list[Any] = []
    for row, state in zip(logits, states, strict=True):
        try:
            out.append(sample(row, state))
        except (BackendError, OptionError) as error:
            out.append(error)
    return out
