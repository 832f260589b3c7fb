"""What a request has to bring, for the graphs that are to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ernie_rt.contract.step import INDEX_ARRAYS
from ernie_rt.errors import ContextError, PromptError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import TensorType
from ernie_rt.modeling.graphs import MAIN, VISION
from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import FEATURES, FEATURES_ROW, PlacedItem
from ernie_rt.runtime.sequence import Request


@dataclass(frozen=True, slots=True)
class Intake:
    """What the graph `main` takes in beside the index arrays of a step: `inputs` for each token, by name, and
    `features` (None: its model sees nothing)."""

    inputs: Mapping[str, TensorType]
    features: TensorType | None

    @classmethod
    def of(cls, graphs: Mapping[str, Graph]) -> Intake:
        """Of a model's graphs; of none where `main` takes in index arrays alone."""
        taken = {
            value.name: value.type
            for value in (graphs[MAIN].inputs if MAIN in graphs else ())
            if value.name not in INDEX_ARRAYS or value.type.dims[1:] not in ((), (1,))
        }
        if VISION not in graphs:
            return cls(taken, None)
        del taken[FEATURES_ROW]
        return cls(taken, taken.pop(FEATURES))

    def checked(self, request: Request, capacity: int) -> Request:
        """A request that fits into a cache of so many tokens for each sequence, with the positions of its text where it
        brings none; PromptError for one that is empty, asks for nothing, or brings what the graph does not take in."""
        if not request.ids:
            raise PromptError("the prompt is empty", hint="Give at least one token")
        if request.max_new_tokens < 1 and request.reuses:
            raise PromptError("nothing is asked for", expected="a new token, all logits, or taps")
        if request.most_entered > capacity:
            raise ContextError(
                "prompt and answer are longer than the context",
                expected=f"at most {capacity} tokens",
                found=f"{len(request.ids)} of prompt and {request.max_new_tokens} new",
                hint="Shorten the prompt, ask for fewer new tokens, or raise max_context",
            )
        if POSITIONS in self.inputs and POSITIONS not in request.inputs:
            places = PerToken.places(len(request.ids), self.inputs[POSITIONS])
            request = replace(request, inputs={**request.inputs, POSITIONS: places})
        if request.inputs.keys() != self.inputs.keys():
            raise PromptError(
                "the request does not bring what the graph takes in",
                expected=", ".join(sorted(self.inputs)) or "ids alone",
                found=", ".join(sorted(request.inputs)) or "ids alone",
            )
        for name, given in request.inputs.items():
            problem = given.problem(len(request.ids), self.inputs[name])
            if problem is not None:
                raise PromptError(f"the input {name!r} {problem}")
        if request.items and self.features is None:
            raise PromptError(
                "the model takes in text alone",
                found=f"{len(request.items)} pictures or videos",
                hint="Choose a model of the family VL, whose vision is loaded",
            )
        _check_places(request.items, len(request.ids))
        return request


def _check_places(items: Sequence[PlacedItem], tokens: int) -> None:
    """PromptError for items that do not lie one behind the other within a prompt of so many tokens."""
    free = 0
    for number, placed in enumerate(items, 1):
        if placed.start < free or placed.stop > tokens or placed.item.tokens < 1:
            raise PromptError(
                f"item {number} of {len(items)} does not lie behind those in front of it, within the prompt",
                expected=f"some of the tokens {free} to {tokens - 1}",
                found=f"{placed.start} to {placed.stop - 1}",
            )
        free = placed.stop
