"""Micro-models, what the reference says on them, and traffic to put an engine through."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import cache

import numpy as np

import ernie_rt
from ernie_rt.graph.types import Weight
from ernie_rt.loading import Located
from ernie_rt.modeling.config import parse_config
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.session import Model
from ernie_rt.weights.source import Array
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small
from support.pages import free_pages
from support.sighted import FIELDS

CONTEXT = 48
COMMON = {"head_dim": 16, "tie_word_embeddings": False}
MODELS = {
    "dense": Located(small(**COMMON, eos_token_id=[59, 0], model_type="ernie4_5")),
    "moe": Located(small(**COMMON, eos_token_id=[50, 19], moe_num_experts=8, moe_k=3)),
}
"""Stop tokens are such that some of the continuations meet one; MoE layers have two shared experts."""

_OTHERS = {"im_patch_id": 30, "eos_token_id": [50, 19], "tie_word_embeddings": False}
WITH_VISION = MODELS | {"vl": Located(parse_config(FIELDS | _OTHERS, "vl"))}
"""And one that sees, which draws as many of vision's ids as of text's."""

_random = np.random.default_rng(0)
PROMPTS = tuple(tuple(_random.integers(0, 61, length).tolist()) for length in (9, 1, 4, 23, 2, 1, 14, 6, 30, 3, 11, 1))


class Weights(Synthetic):
    """Synthetic weights whose correction bias is large enough to change what the router chooses."""

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        super().fill(weight, part, out, index)
        if weight.name.endswith("correction_bias"):
            out *= 10.0


@cache
def reference(name: str) -> Model:
    """The model in float64."""
    model = WITH_VISION[name]
    return ernie_rt.load(model, backend="reference", dtype="float64", weights=Weights(), max_context=CONTEXT)


@cache
def expected_logits(name: str, ids: tuple[int, ...]) -> np.ndarray:
    return reference(name).logits(ids)


@cache
def expected_tokens(name: str, ids: tuple[int, ...], max_new_tokens: int, *, ignore_eos: bool = False) -> list[int]:
    stop_ids = frozenset[int]() if ignore_eos else frozenset(WITH_VISION[name].config.eos_token_id)
    engine = reference(name)._engine
    sequence = engine.submit(Request(ids, max_new_tokens, stop_ids))
    list(engine.run(sequence))
    return sequence.generated


def error(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, over the rms of the exact logits."""
    return float(np.abs(actual - exact).max() / np.sqrt(np.mean(np.square(exact))))


@dataclass(frozen=True)
class Visit:
    """A request that comes before step number `arrives`, and is cancelled once it has `leaves` tokens."""

    ids: tuple[int, ...]
    arrives: int = 0
    max_new_tokens: int = 12
    leaves: int | None = None
    chunk: int | None = None
    ignore_eos: bool = False


def traffic(name: str) -> list[Visit]:
    """Prompts of all lengths, some at once and some later; some stop, some are cancelled, some go on."""
    prompts = [ids for ids in PROMPTS if len(ids) + 12 <= CONTEXT]
    return [
        Visit(ids, arrives=3 * (i // 3), leaves=(None, None, 2)[i % 3], chunk=(None, 1, 5)[i % 5 % 3], ignore_eos=i < 2)
        for i, ids in enumerate(prompts)
    ]


def drive(engine: Engine, name: str, visits: Items[Visit]) -> list[SequenceState]:
    """Let all come and go; every sequence that was not cancelled must say what the reference says."""
    stop_ids = frozenset(WITH_VISION[name].config.eos_token_id)
    pages = free_pages(engine)
    sequences: list[SequenceState] = []
    number = 0
    while len(sequences) < len(visits) or any(sequence.finish is None for sequence in sequences):
        for visit in visits[len(sequences) :]:
            if visit.arrives > number and any(sequence.finish is None for sequence in sequences):
                break
            stops = frozenset[int]() if visit.ignore_eos else stop_ids
            sequences.append(engine.submit(Request(visit.ids, visit.max_new_tokens, stops, chunk=visit.chunk)))
        engine.step()
        number += 1
        assert number < 1000, "some sequence never ends"
        for visit, sequence in zip(visits, sequences, strict=False):
            if visit.leaves is not None and len(sequence.generated) >= visit.leaves:
                engine.cancel(sequence)
    for visit, sequence in zip(visits, sequences, strict=True):
        told = expected_tokens(name, visit.ids, visit.max_new_tokens, ignore_eos=visit.ignore_eos)
        if sequence.finish == "cancelled":
            told = told[: visit.leaves]
        assert sequence.generated == told
    assert free_pages(engine) == pages
    return sequences
