"""Figures of what a backend found, beside what is exact and what rounding alone makes of it; and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.rounding import EPSILON, growth, multiples, rms, rows_rms, summary
from ernie_rt.graph.types import DType

Array = npt.NDArray[Any]

OP_LIMIT: Final = 4.0
"""How many times its noise an op may be off: another order of summation is worth about one."""
MODEL_LIMIT: Final = 4.0
"""The same end to end."""
TIE_LIMIT: Final = 8.0
"""How many times the noise may lie between choices, of tokens or experts, that rounding decides: here the worst of many
single numbers is met, and no rms of a row."""
CANDIDATES: Final = 32
"""Tokens are chosen among so many of the best logits, to which trained weights bring more noise than to the others."""
OP_BACKSTOP: Final = 8.0
"""No declaration excuses an op that is off by more than so many epsilons of its dtype, of the rms of its values."""
MODEL_BACKSTOP: Final[Mapping[DType, float]] = {"float64": 1e-11, "float32": 3e-5, "float16": 1e-2, "bfloat16": 8e-2}
"""Nor a model whose logits are off by so much of their rms. Float32's is a normalised mean square error of 1e-9."""


def op_figures(
    found: Array, exact: Array, noisy: Array, dtype: DType, activation: DType, factor: float = 1.0
) -> dict[str, float]:
    """The figures of one value `[rows, ..]` of a dtype, in a graph of activations of another."""
    backstop = OP_BACKSTOP * max(EPSILON[dtype], EPSILON[activation])
    return _figures(found, exact, noisy, dtype, OP_LIMIT * factor, backstop)


def graph_figures(
    found: Array, exact: Array, noisy: Array, dtype: DType, activation: DType, factor: float = 1.0
) -> dict[str, float]:
    """The same of what comes out of a whole graph."""
    limit, backstop = MODEL_LIMIT * factor, MODEL_BACKSTOP[activation]
    return _figures(found, exact, noisy, dtype, limit, backstop, growth(len(exact)))


@dataclass(frozen=True, slots=True)
class Rows:
    """Logits of some positions, or a sketch of them, beside those of the oracle and of the yardstick `[n, ..]`.

    `divergence` and `unavoidable` are what the first and the last diverge from the oracle, in nats; `chosen` and `best`
    are the best tokens of the first and the oracle, `near` whether the chosen one is best, or so near that noise
    decides; each `[n]`.
    """

    found: Array
    exact: Array
    noisy: Array
    divergence: Array
    unavoidable: Array
    chosen: Array
    best: Array
    near: Array

    @classmethod
    def of(cls, found: Array, exact: Array, noisy: Array) -> Rows:
        chosen = found.argmax(-1)
        divergences = kl(exact, found), kl(exact, noisy)
        near = ties(exact, noisy, chosen, growth(len(exact)))
        return cls(found, exact, noisy, *divergences, chosen, exact.argmax(-1), near)

    def figures(self, kept: Array, dtype: DType, activation: DType, factor: float) -> dict[str, float]:
        """The figures of the rows that are to be kept, all of which count when none is."""
        kept = kept if kept.any() else ~kept
        figures = graph_figures(self.found[kept], self.exact[kept], self.noisy[kept], dtype, activation, factor)
        divergence, unavoidable = self.divergence[kept], float(self.unavoidable[kept].mean())
        # A divergence grows with the square of the error.
        limit = (MODEL_LIMIT * factor) ** 2 * max(unavoidable, 1e-15)
        figures |= {
            "nmse": figures["error"] ** 2,
            "kl": float(divergence.mean()),
            "kl_max": float(divergence.max()),
            "kl_noise": unavoidable,
            "kl_limit": limit,
            "top1": float(np.mean(self.chosen[kept] == self.best[kept])),
            "positions": float(len(divergence)),
        }
        figures["margin"] = max(figures["margin"], float(divergence.mean()) / limit)
        return figures


def _figures(
    found: Array, exact: Array, noisy: Array, dtype: DType, limit: float, backstop: float, allowed: float = 1.0
) -> dict[str, float]:
    times = summary(multiples(found, exact, noisy, EPSILON[dtype]), allowed)
    scale = rms(exact)
    error = rms(found - exact) / scale if scale else (0.0 if np.array_equal(found, exact) else np.inf)
    error = error if np.isfinite(error) else np.inf
    return {
        "error": error,
        "noise": rms(noisy - exact) / scale if scale else 0.0,
        "max": float(np.abs(found - exact).max()) / scale if scale and np.isfinite(error) else error,
        "times": times,
        "limit": limit,
        "backstop": backstop,
        "margin": max(times / limit, error / backstop),
    }


def kl(exact: Array, found: Array) -> Array:
    """The divergence of the distributions that logits stand for, row by row `[rows]`."""
    p, q = _log_softmax(exact), _log_softmax(found)
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0))


def ties(exact: Array, noisy: Array, chosen: Array, allowed: float = 1.0) -> Array:
    """Whether the choices `[rows]` are the best ones, or so near that noise, or `allowed` times as much, decides."""
    noise = choice_noise(exact, noisy)
    noise = np.maximum(noise, np.median(noise))
    behind = exact.max(-1) - np.take_along_axis(exact, chosen[:, None], -1)[:, 0]
    return np.asarray(behind <= TIE_LIMIT * allowed * noise)


def choice_noise(exact: Array, noisy: Array) -> Array:
    """The rms of what rounding does to the CANDIDATES of each row `[rows]`."""
    best = np.argpartition(-exact, min(CANDIDATES, exact.shape[-1]) - 1, axis=-1)[:, :CANDIDATES]
    return rows_rms(np.take_along_axis(noisy - exact, best, -1))


def agreed(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two answers begin with alike."""
    pairs = zip(a, b, strict=False)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _log_softmax(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = x.astype(np.float64) - x.max(-1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))
