"""Deterministic mode: whatever runs beside a request, and happens to it, it gets the bits that it gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import ernie_rt
from ernie_rt.loading import Located
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request, SequenceState
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.session import Model
from support.configs import small
from support.pages import admitted, free_pages
from support.rehearsal import Weights

CONTEXT: Final = 64
COMMON: Final = (tuple(range(20)), tuple(range(40, 7, -1)))
"""How prompts begin: some go on from rows that others left, in the middle of a page or at its end."""
CONFIG: Final = small(
    hidden_size=48, num_attention_heads=6, head_dim=16, intermediate_size=88, moe_num_experts=8, moe_k=3,
    moe_intermediate_size=40,
)  # fmt: skip
"""Three query heads of a kv head, and widths that vectors do not divide."""


@contextmanager
def loaded(dtype: str, threads: int, *, deterministic: bool = True) -> Iterator[Model]:
    """A cache of so few pages that sequences often have to give up their rows."""
    with ernie_rt.load(
        Located(CONFIG), backend="eager", dtype=dtype, weights=Weights(), max_context=CONTEXT, max_sequences=5,
        max_batch_tokens=24, cache_tokens=112, threads=threads, deterministic=deterministic,
    ) as model:  # fmt: skip
        yield model


@pytest.fixture(
    scope="module", params=[("float32", 2), ("bfloat16", 3), pytest.param(("float32", 1), marks=pytest.mark.long)]
)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with loaded(*request.param) as model:
        yield model


@dataclass(frozen=True)
class Visit:
    """A request that comes before step number `arrives`, and is cancelled once it has `leaves` tokens."""

    ids: tuple[int, ...]
    new: int
    arrives: int
    leaves: int | None
    chunk: int | None
    all_logits: bool
    temperature: float

    def request(self, *, chunk: int | None = None) -> Request:
        sampling = SamplingParams(temperature=self.temperature, seed=7, logprobs=20)
        return Request(self.ids, self.new, all_logits=self.all_logits, chunk=chunk, sampling=sampling)


VISITS = st.lists(
    st.builds(
        Visit,
        ids=st.tuples(st.sampled_from([(), *COMMON]), st.lists(st.integers(0, 60), min_size=1, max_size=20)).map(
            lambda parts: (*parts[0], *parts[1])
        ),
        new=st.integers(1, 10),
        arrives=st.integers(0, 12),
        leaves=st.none() | st.integers(0, 5),
        chunk=st.none() | st.integers(1, 20),
        all_logits=st.booleans(),
        temperature=st.sampled_from([0.0, 1.0]),
    ),
    min_size=2,
    max_size=9,
).map(lambda visits: sorted(visits, key=lambda visit: visit.arrives))


def crowd(engine: Engine, visits: list[Visit]) -> list[SequenceState]:
    """Let all come and go, on one engine."""
    sequences: list[SequenceState] = []
    pages, number = free_pages(engine), 0
    while len(sequences) < len(visits) or any(sequence.finish is None for sequence in sequences):
        while len(sequences) < len(visits) and visits[len(sequences)].arrives <= number:
            visit = visits[len(sequences)]
            sequences.append(engine.submit(visit.request(chunk=visit.chunk)))
        engine.step()
        number += 1
        for visit, sequence in zip(visits, sequences, strict=False):
            if visit.leaves is not None and len(sequence.generated) >= visit.leaves:
                engine.cancel(sequence)
    assert free_pages(engine) == pages
    return sequences


def alone(model: Model, visit: Visit, tokens: int) -> SequenceState:
    """As far as it goes in so many tokens."""
    engine = Engine(model._executable, CONTEXT, reuse=False)
    sequence = engine.submit(replace(visit.request(), max_new_tokens=max(tokens, 1)))
    while sequence.finish is None:
        engine.step()
    return sequence


def told(sequence: SequenceState) -> list[Any]:
    """Tokens, and log probabilities in float64, which follow from all logits of a row."""
    return [(event.token, event.logprobs) for event in sequence.events if event.token is not None]


def same(model: Model, visit: Visit, sequence: SequenceState) -> bool:
    """Whether a sequence that may have been cancelled got the bits that it gets alone, as far as it went."""
    by_itself = alone(model, visit, len(sequence.generated))
    numbers, logits = told(by_itself), np.concatenate([*by_itself.logits, np.empty((0, CONFIG.vocab_size), np.float32)])
    mine = np.concatenate([*sequence.logits, np.empty((0, CONFIG.vocab_size), np.float32)])
    return told(sequence) == numbers[: len(told(sequence))] and np.array_equal(mine, logits[: len(mine)])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits=VISITS)
def test_in_a_crowd_as_alone(model: Model, visits: list[Visit]) -> None:
    for visit, sequence in zip(visits, crowd(Engine(model._executable, CONTEXT), visits), strict=True):
        assert sequence.finish in ("length", "cancelled")
        assert same(model, visit, sequence)


def rush(engine: Engine) -> list[tuple[Visit, SequenceState]]:
    """Many at once, with beginnings in common and too few rows."""
    visits = [Visit((*COMMON[place % 2], *range(place)), 12, place, None, None, False, 0.0) for place in range(8)]
    return list(zip(visits, crowd(engine, visits), strict=True))


def test_rows_are_given_up_and_found_again(model: Model) -> None:
    """What makes `test_in_a_crowd_as_alone` worth something does happen."""
    engine = Engine(model._executable, CONTEXT)
    found = rush(engine)
    assert all(same(model, visit, sequence) for visit, sequence in found)
    assert any(sequence.cached for _, sequence in found)
    assert admitted(engine) > len(found)


def test_without_the_mode_bits_differ() -> None:
    with loaded("float32", 1, deterministic=False) as model:
        found = rush(Engine(model._executable, CONTEXT))
        assert not all(same(model, visit, sequence) for visit, sequence in found)
