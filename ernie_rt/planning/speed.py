"""How long a model will take, from what its graph costs and what a backend reaches of a device's peaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from ernie_rt.contract.planner import Device, Rate, Rates
from ernie_rt.contract.protocols import MAX_PATCHES
from ernie_rt.graph.cost import Bindings, alike, composites, node_cost, weights_read
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.types import Plain, Weight
from ernie_rt.planning.seeing import Shown, encoding
from ernie_rt.vision.grid import Grid

PROMPT: Final = 512
NEW: Final = 128
"""A typical request: tokens of its prompt's text, and of its answer."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds that a prompt of so many tokens takes, each token of the answer, and one when the context is full; before
    all of them tower and resampler take `vision_seconds` for the prompt's pictures."""

    prompt: int
    prefill_seconds: float
    token_seconds: float
    full_seconds: float
    vision_seconds: float = 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        return self.prompt / self.prefill_seconds

    @property
    def decode_tokens_per_second(self) -> float:
        return 1 / self.token_seconds

    @property
    def first_token_seconds(self) -> float:
        """What passes until an answer begins."""
        return self.vision_seconds + self.prefill_seconds

    @property
    def request_seconds(self) -> float:
        """What a typical request takes in all."""
        return self.first_token_seconds + NEW * self.token_seconds


@dataclass(frozen=True, slots=True)
class Decode:
    """What a step takes in which each of some sequences gets a token, on whatever device.

    `weight_bytes` (by how many sequences there are) and `row_bytes` (of each row of a sequence's cache) are over the
    share of bandwidth that reading them reaches; `flops`, by what is multiplied, are those of a token and those of each
    row that it attends to, over the share of peak FLOPs. `seconds` are spent whatever is computed.
    """

    weight_bytes: tuple[float, ...]
    row_bytes: float
    flops: Mapping[str, tuple[float, float]]
    seconds: float


class Predictor:
    """Predicts one model, held as a graph says whose packed weights the backend accepts, on one device; with the graph
    `vision` also how long pictures take."""

    def __init__(self, graph: Graph, device: Device, rates: Rates, vision: Graph | None = None) -> None:
        self._nodes: Counter[Node] = alike(graph.with_weights(held))
        self._tower: Counter[Node] = Counter() if vision is None else alike(vision.with_weights(held))
        self._device = device
        self._rates = rates
        self._known: dict[object, tuple[float, float, dict[str, float]]] = {}

    def speed(
        self,
        context: int,
        batch_tokens: int,
        prompt: int = PROMPT,
        shown: Sequence[Shown] = (),
        max_patches: int = MAX_PATCHES,
    ) -> Speed | None:
        """That of a prompt, in chunks of `batch_tokens`, and of tokens after it, in a context of at most so many.

        What is `shown` comes before the prompt's text, in steps of at most `max_patches`. None where the device's peaks
        are not known, or the context has no room for what is shown.
        """
        seen = sum(each.tokens for each in shown)
        if not self._device.bandwidth or not self._device.flops or seen > context - 2 > 0:
            return None
        prompt = max(1, min(seen + prompt, context - 1))
        ends = [*range(batch_tokens, prompt, batch_tokens), prompt]
        starts = [0, *ends[:-1]]
        prefill = sum(
            self.step(end - start, end, min(end, seen) - min(start, seen))
            for start, end in zip(starts, ends, strict=True)
        )
        return Speed(
            prompt,
            prefill,
            self.step(1, min(context, prompt + NEW // 2)),
            self.step(1, context),
            sum(self.encode(grid) for each in shown for grid in each.pieces(max_patches)),
        )

    def step(self, new: int, context: int, seen: int = 0) -> float:
        """Seconds of a step of so many new tokens of one sequence, which then has `context`; `seen` of them are a
        picture's."""
        weights, cache, flops = self._work(new, context, seen)
        computing = sum(work / self._peak(products) for products, work in flops.items())
        return max((weights + cache) / self._device.bandwidth, computing) + self._overhead(self._nodes)

    def encode(self, grid: Grid) -> float:
        """Seconds of a step of the graph `vision` for a grid of patches."""
        weights, computing = 0.0, 0.0
        for times, bindings in encoding(grid):
            read, _, flops = self._worked(self._tower, bindings)
            weights = max(weights, read)  # once in a step, whatever it takes in
            computing += times * sum(work / self._peak(products) for products, work in flops.items())
        return max(weights / self._device.bandwidth, computing) + self._overhead(self._tower)

    def decode(self, sequences: Sequence[int]) -> Decode:
        """What `step` says of a new token, taken apart, and for several sequences that get one each."""
        _, cache, flops = self._work(1, 1, 0)
        _, longer, more = self._work(1, 2, 0)
        row = longer - cache
        return Decode(
            weight_bytes=tuple(self._work(count, 1, 0)[0] + count * (cache - row) for count in sequences),
            row_bytes=row,
            flops={products: (2 * work - more[products], more[products] - work) for products, work in flops.items()},
            seconds=self._overhead(self._nodes),
        )

    def _work(self, new: int, context: int, seen: int) -> tuple[float, float, dict[str, float]]:
        return self._worked(self._nodes, {"N": new, "C": context, "P": context, "L": 1, "F": 1 + seen})

    def _worked(self, nodes: Counter[Node], bindings: Bindings) -> tuple[float, float, dict[str, float]]:
        """Bytes of weights and of the cache, and FLOPs by what is multiplied, each over the share that is reached.

        Worked out once: a plan asks for the same prompt in one context after the other.
        """
        asked = nodes is self._tower, *bindings.items()
        if asked in self._known:
            return self._known[asked]
        weights = cache = 0.0
        flops: dict[str, float] = {}
        for node, times in nodes.items():
            cost, read = node_cost(node, bindings), list(weights_read(node, bindings))
            for weight, nbytes in read:
                weights += times * nbytes / self._rate(weight).bandwidth
            cache += times * cost.cache_bytes / self._rates.cache
            rate = self._rate(max(read, key=lambda each: each[1])[0] if read else None)
            flops[rate.products] = flops.get(rate.products, 0.0) + times * cost.flops / rate.flops
        self._known[asked] = weights, cache, flops
        return weights, cache, flops

    def _overhead(self, nodes: Counter[Node]) -> float:
        begun = sum(times * _runs(part) for node, times in nodes.items() for part in composites(node))
        return self._rates.step_seconds + begun * self._rates.node_seconds

    def _rate(self, weight: Weight | None) -> Rate:
        """That of how a weight is held; of what nobody measured, the first."""
        rates = self._rates.weights
        name = "" if weight is None else str(weight.storage).partition("/")[0]
        if isinstance(weight, Weight) and isinstance(weight.storage, Plain):
            name = weight.storage.dtype
        return rates[name] if name in rates else next(iter(rates.values()))

    def _peak(self, products: str) -> float:
        """Of a dtype that the device does not multiply by itself, that of float32, or else the least that it has."""
        flops = self._device.flops
        return flops.get(products) or flops.get("float32") or min(flops.values())


def _runs(node: Node) -> int:
    """How often a composite is begun for a token: experts one after the other."""
    return cast(int, node.attributes["top_k"]) if node.op == "moe_experts" else 1


def held(weight: Weight) -> Weight:
    """Plain weights are held in the dtype that they take part in computations as."""
    return replace(weight, storage=Plain(weight.type.dtype)) if isinstance(weight.storage, Plain) else weight
