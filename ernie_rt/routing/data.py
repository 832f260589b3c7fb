"""Where the tokens of a text went in a mixture of experts, as arrays, and how evenly that loads the experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Pool = Literal["text", "vision"]
VISION: Final = "vision"
"""What is in the scope of a router that is for pictures: `layers.3.mlp.vision.route`."""


class OfRouter:
    """What is to be known of a router by its `scope`."""

    __slots__ = ()
    scope: str

    @property
    def layer(self) -> int:
        """3 of `layers.3.mlp.route`."""
        return int(self.scope.split(".")[1])

    @property
    def pool(self) -> Pool:
        """Which tokens its experts are for: where a model sees, those of pictures have some of their own."""
        return "vision" if VISION in self.scope.split(".") else "text"

    @property
    def name(self) -> str:
        """What people are shown: `layer 3`, and `vision 3` where the experts are for pictures."""
        return f"{'vision' if self.pool == 'vision' else 'layer'} {self.layer}"


@dataclass(frozen=True, slots=True, eq=False)
class Routes(OfRouter):
    """What one router did with N tokens, each of which it sends to A of its E experts.

    `ids` and `weights` are `[N, A]`, the best score first; an id of -1 stands for no expert, and is counted nowhere: a
    token that the router's pool does not serve has no other, and no weight. `unbiased` are the ids that it would have
    chosen without its correction bias, None where it has none. The arrays are read-only.
    """

    scope: str
    experts: int
    ids: Int32
    weights: Float32
    unbiased: Int32 | None

    def serves(self, token: int) -> bool:
        """Whether it sends a token to any expert."""
        return bool((self.ids[token] >= 0).any())

    @property
    def by_bias(self) -> Bools:
        """Which of the choices `[N, A]` are there by the correction bias alone."""
        if self.unbiased is None:
            return np.zeros(self.ids.shape, np.bool_)
        same: Bools = (self.ids[:, :, None] == self.unbiased[:, None, :]).any(-1)  # [N, A]
        return ~same

    def displaced(self, token: int) -> dict[int, int]:
        """The experts that a token has by the correction bias alone, each with one that it would have had instead."""
        if self.unbiased is None:
            return {}
        ids, others = self.ids[token].tolist(), self.unbiased[token].tolist()
        lost = [id for id in others if id not in ids]
        return dict(zip((id for id in ids if id not in others), lost, strict=True))

    @property
    def load(self) -> ExpertLoad:
        there = self.ids >= 0
        weights = np.bincount(self.ids[there], self.weights[there], self.experts)
        unbiased = None if self.unbiased is None else self._counts(self.unbiased)
        return ExpertLoad(
            self.scope,
            int(there.any(-1).sum()),
            self._counts(self.ids),
            fixed(weights),
            unbiased,
            int(self.by_bias.any(-1).sum()),
        )

    def _counts(self, ids: Int32) -> Int64:
        return fixed(np.bincount(ids[ids >= 0], minlength=self.experts))


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly c_e choices fall on E experts.

    `entropy` is -Σ p_e ln p_e / ln E with p_e = c_e / Σ c, from 0, all on one, to 1, all alike (Shannon's entropy over
    its maximum: Pielou's evenness, J. Theor. Biol. 13, 1966). `variation` is the coefficient of variation, the standard
    deviation of c over its mean (Shazeer et al., arXiv:1701.06538, appendix A, whose loss is its square). `peak` is the
    largest c over the mean: 1 + MaxVio of Wang et al., arXiv:2408.15664. All are NaN where nothing was chosen.
    """

    entropy: float
    variation: float
    peak: float

    @classmethod
    def of(cls, counts: Int64) -> Balance:
        if not counts.any():
            return cls(math.nan, math.nan, math.nan)
        mean = counts.mean()
        p = counts[counts > 0] / counts.sum()
        entropy = float(-(p * np.log(p)).sum() / math.log(len(counts))) if len(counts) > 1 else 1.0
        return cls(entropy, float(counts.std() / mean), float(counts.max() / mean))


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoad(OfRouter):
    """What one router gave its E experts to do, summed over any number of texts.

    `tokens` came through it; `counts` `[E]` of them went to each expert, with these `weights` in all. Without the
    correction bias it would have been `unbiased` `[E]`, and `moved` tokens would have gone to other experts.
    """

    scope: str
    tokens: int
    counts: Int64
    weights: Float64
    unbiased: Int64 | None
    moved: int

    def __add__(self, other: ExpertLoad) -> ExpertLoad:
        both = None
        if self.unbiased is not None and other.unbiased is not None:
            both = fixed(self.unbiased + other.unbiased)
        return ExpertLoad(
            self.scope,
            self.tokens + other.tokens,
            fixed(self.counts + other.counts),
            fixed(self.weights + other.weights),
            both,
            self.moved + other.moved,
        )

    @property
    def shares(self) -> Float64:
        """The share of the tokens that went to each expert `[E]`: A in all, since each token goes to A of them."""
        return fixed(self.counts / max(self.tokens, 1))

    @property
    def balance(self) -> Balance:
        return Balance.of(self.counts)

    @property
    def unused(self) -> Int64:
        """The experts that no token went to."""
        return fixed(np.flatnonzero(self.counts == 0))

    @property
    def moved_share(self) -> float:
        return self.moved / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Load:
    """What all routers of a model gave their experts to do; loads of several texts can be added."""

    texts: int
    tokens: int
    routers: tuple[ExpertLoad, ...]

    def __add__(self, other: Load) -> Load:
        routers = tuple(a + b for a, b in zip(self.routers, other.routers, strict=True))
        return Load(self.texts + other.texts, self.tokens + other.tokens, routers)


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Which experts each token of a text was sent to: its `ids` `[N]`, and what every router did with them, those for
    text first."""

    ids: Int32
    routers: tuple[Routes, ...]

    @property
    def load(self) -> Load:
        return Load(1, len(self.ids), tuple(routes.load for routes in self.routers))


def fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, read-only from now on."""
    array.flags.writeable = False
    return array
