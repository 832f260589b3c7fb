"""Whether a choice of a token is one that rounding decides, by the conformance suite's notion of noise.

The oracle (the model in float64) runs over the tokens so far, and once more with every value rounded as a backend
declares. What that does to the best logits is the noise. A choice is within it when scores that lie no more than
`TIE_LIMIT` times the noise apart may come in either order: the same limit that `ernie-rt conform` and `diff` have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.build import accepted
from ernie_rt.conformance.features import features_of, fed
from ernie_rt.conformance.goldens import usual
from ernie_rt.conformance.metrics import CANDIDATES, TIE_LIMIT, choice_noise
from ernie_rt.conformance.oracle import Walk, Walked
from ernie_rt.conformance.rounding import growth
from ernie_rt.conformance.sampler import TIE
from ernie_rt.conformance.storage import numbers_of
from ernie_rt.conformance.trace import most_tokens
from ernie_rt.contract.protocols import Backend, Numerics, Target
from ernie_rt.contract.step import Step
from ernie_rt.errors import ErnieRtError
from ernie_rt.graph.types import Weight
from ernie_rt.host import PluginHost, blame
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.graphs import MAIN, VISION, build_graphs
from ernie_rt.receipts.receipt import Ran
from ernie_rt.runtime.inputs import POSITIONS
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.sampler import penalise
from ernie_rt.sampling.state import SamplerState
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions
from ernie_rt.weights.source import StoredSource

Array = npt.NDArray[Any]

ROWS: Final = 32
"""The noise is no less than what is usual in so many rows up to the one that is asked about: rounding may be lucky."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What rounding does at one place: `logits [V]` of the oracle, and what one side's arithmetic does to the best of
    them (rms).

    `near` is how far apart two logits may be, and come in either order. `router` names a choice of experts that this
    arithmetic leaves open, at a token so far: behind it, where the other experts may have been chosen, two logits may
    be `far` apart.
    """

    logits: Array
    rms: float
    near: float
    router: str
    far: float

    @property
    def behind_router(self) -> Noise:
        """The same with the experts left open."""
        return replace(self, near=max(self.near, self.far))


def noise_after(
    config: ModelConfig,
    source: StoredSource,
    sides: Sequence[Ran],
    ids: Sequence[int],
    host: PluginHost,
    items: Sequence[tuple[int, Item]] = (),
) -> list[Noise] | None:
    """The noise of the logits after the last of some tokens, for each side; None where those are too many to judge.

    Takes the memory of the largest op in float64, and each weight is read once for each run. There is one for each side
    and one more for each that leaves experts open, in which every such choice is made the other way. `items` are what
    some of the tokens show, each behind the place where it begins.
    """
    if len(ids) > most_tokens(config):
        return None
    step = replace(Step.whole([ids]), rows=np.arange(max(0, len(ids) - ROWS), len(ids), dtype=np.int32))

    placed = [PlacedItem(*each) for each in items]
    places = rope_positions(len(ids), [(start, item.merged) for start, item in items])

    def walk(side: Ran, numerics: Numerics | None, choice: dict[str, Array]) -> Walked:
        graphs, target = build_graphs(config, side.dtype, source.storages), Target((side.device,), side.dtype)
        backend = _backend(side, host)
        if backend is not None:
            with blame(side.backend):
                graphs = {name: accepted(graph, backend, target) for name, graph in graphs.items()}
        else:
            graphs = {name: graph.with_weights(lambda weight: weight.plain) for name, graph in graphs.items()}

        def load(weight: Weight) -> Array:
            return numbers_of(source, weight, {"P": step.page_size})

        graph, given = graphs[MAIN], step
        rounding = None if numerics is None else numerics.of
        if VISION in graphs:
            features = features_of(graphs[VISION], [each.item for each in placed], load, target.dtype, rounding)
            shown = fed(step, [placed], features, config.hidden_size)
            given = replace(step, extra={POSITIONS: places, **shown})
        run = Walk(graph, load, step.page_size, target.dtype, rounding)
        return run.run(given.inputs(graph), given.bindings(graph), choice)

    exact = walk(sides[0], None, {})
    choice = {scope: route.ids for scope, route in exact.routes.items()}
    logits = exact.outputs["logits"].astype(np.float64)
    allowed = TIE_LIMIT * growth(len(ids))

    found = []
    for side in sides:
        noisy = walk(side, _numerics(side, host), choice)
        router, others = _open_routers(exact, noisy)
        rms = _usual(choice_noise(logits, noisy.outputs["logits"].astype(np.float64)))
        near = far = allowed * rms
        if router:
            turned = walk(sides[0], None, choice | others).outputs["logits"]
            best = np.argsort(-logits, axis=-1)[:, :CANDIDATES]
            far += _usual(np.ptp(np.take_along_axis(turned - logits, best, -1), axis=-1))
        found.append(Noise(logits[-1], rms, near, router, far))
    return found


def _usual(rows: Array) -> float:
    """The last row's, and no less than what is usual."""
    return float(max(rows[-1], np.median(rows)))


def within(noise: Noise, state: SamplerState, token: int) -> bool:
    """Whether the sampler may choose this token when logits move within the noise.

    With a temperature the largest sum of a score and its Gumbel noise wins among what the filters keep. That noise is
    keyed by seed, position and token, so it is the same on both sides, and what differs is the score alone: logits over
    the temperature. So sums that lie `near / temperature` apart may come in either order. A filter may besides keep, or
    cut, whatever lies so near to its border.
    """
    params = state.params
    row = noise.logits.copy()
    if params.penalises or params.masks:
        row = penalise(noise.logits, state).astype(np.float64)
    if state.vocab_size is not None:
        row[state.vocab_size :] = -np.inf
    if not row[token] > -np.inf:
        return False
    near = noise.near * max(params.repetition_penalty, 1 / params.repetition_penalty)
    if params.temperature == 0:
        return bool(row.max() - row[token] <= near)
    scores, near = row / params.temperature, near / params.temperature + TIE
    ids = np.flatnonzero(scores > -np.inf)
    drawn = np.full(len(row), -np.inf)
    drawn[ids] = scores[ids] + noise_at(ids, np.uint64(state.seed), np.uint64(state.position))
    rivals = np.flatnonzero(drawn > drawn[token] + near)
    borders = Borders(scores, near, params.top_k, params.top_p, params.min_p)
    return borders.may_keep(token) and all(borders.may_cut(rival) for rival in rivals.tolist())


class Borders:
    """What the filters may do with a token when each score moves by half of `near`."""

    def __init__(self, scores: Array, near: float, top_k: int, top_p: float, min_p: float) -> None:
        self._scores = scores
        self._near = near
        self._top_k, self._top_p, self._min_p = top_k, top_p, min_p
        self._least = scores.max() + math.log(min_p) if min_p > 0 else -np.inf
        self._weights = np.exp(scores - scores.max())
        if 0 < top_k < len(scores):  # top-p looks at what these leave
            self._weights[scores < np.partition(scores, -top_k)[-top_k]] = 0
        self._weights[scores < self._least] = 0

    def may_keep(self, token: int) -> bool:
        score, near = self._scores[token], self._near
        better = self._scores > score + near
        return bool(
            (not self._top_k or better.sum() < self._top_k)
            and score + near >= self._least
            and (self._top_p == 1 or self._share(better, -near / 2) < self._top_p)
        )

    def may_cut(self, token: int) -> bool:
        score, near = self._scores[token], self._near
        better = self._scores >= score - near
        better[token] = False
        return bool(
            (self._top_k and better.sum() >= self._top_k)
            or score - near < self._least
            or (self._top_p < 1 and self._share(better, near / 2) >= self._top_p)
        )

    def _share(self, better: Array, moved: float) -> float:
        """What the better ones weigh of all, when they are moved one way and the others the other way."""
        above = self._weights[better].sum() * math.exp(moved)
        return float(above / (above + self._weights[~better].sum() * math.exp(-moved)))


def _numerics(side: Ran, host: PluginHost) -> Numerics:
    """The arithmetic that a side's backend declares or, where that is not here, the usual one."""
    backend = _backend(side, host)
    with suppress(ErnieRtError), blame(side.backend):  # of a device that is not here
        if backend is not None:
            return backend.numerics(Target((side.device,), side.dtype))
    return usual(side.dtype)


def _backend(side: Ran, host: PluginHost) -> Backend | None:
    """A side's backend; None where it is not installed here, or lacks what it needs."""
    try:
        return host.backend(side.backend)
    except ErnieRtError:
        return None


def _open_routers(exact: Walked, noisy: Walked) -> tuple[str, dict[str, Array]]:
    """The first choice of experts that lies within its noise, in words; and of each router that has such the experts
    `[N, A]` with all of these made the other way: the first expert left in the place of the last one taken."""
    first, others = "", {}
    for scope, route in exact.routes.items():
        gap, noise = route.distance(), route.noise(noisy.routes[scope])
        close = np.flatnonzero(gap <= TIE_LIMIT * noise)
        if not len(close):
            continue
        token = int(close[0])
        first = first or (
            f"{scope}, token {token}: experts {gap[token]:.2g} apart, and rounding moves them by {noise[token]:.2g}"
        )
        others[scope] = ids = route.ids.copy()
        scores = route.scores[close]
        last = np.take_along_axis(scores, ids[close], -1).argmin(-1)
        np.put_along_axis(scores, ids[close], -np.inf, -1)
        ids[close, last] = scores.argmax(-1)
    return first, others
