"""What an answer was asked for, once all is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, cast

from ernie_rt.generation.options import GenerateOptions
from ernie_rt.runtime.items import Encodable
from ernie_rt.runtime.sequence import SequenceState
from ernie_rt.sampling.params import SamplingParams

TOLD: Final = frozenset({"logprobs", "margins"})
"""Options that change no token."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The ids of a prompt, and every option as it was settled, in plain values.

    `model.generate(ids, **options)` asks for the same again; with pictures and videos, which are `items` behind the
    places at which their ids begin, `model.chat(ChatPrompt(ids, items=items), **options)` does. `beyond` names what
    such options cannot say of it; empty where they say it all.
    """

    ids: tuple[int, ...]
    options: GenerateOptions
    beyond: str = ""
    items: tuple[tuple[int, Encodable], ...] = ()

    @classmethod
    def of(cls, sequence: SequenceState, stops: Sequence[str]) -> Asked:
        request, sampling = sequence.request, sequence.request.sampling
        options: dict[str, object] = {
            "max_new_tokens": request.max_new_tokens,
            "ignore_eos": True,  # those of the model are among the stop ids
            "stop": list(stops),
            "stop_ids": sorted(request.stop_ids),
        }
        options |= {field.name: getattr(sampling, field.name) for field in fields(SamplingParams)}
        options = {name: value for name, value in options.items() if name not in TOLD}
        options |= {
            "logit_bias": dict(sampling.logit_bias),
            "bad_words": [list(word) for word in sampling.bad_words],
            "allowed_ids": None if sampling.allowed_ids is None else list(sampling.allowed_ids),
            "seed": sequence.sampler.seed if sampling.temperature > 0 else None,
        }
        beyond = ""
        if request.constraint is not None:
            beyond = "a constraint, such as a grammar or a budget of reasoning"
        elif request.reuse_after_change:
            beyond = "rows of the cache that were computed behind other text"
        items = tuple((placed.start, placed.item) for placed in request.items)
        return cls(request.ids, cast(GenerateOptions, options), beyond, items)
