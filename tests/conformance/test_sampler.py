"""The rule for samplers on a device: a sound one passes, and what is off is seen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ernie_rt.conformance import Expectations, Suite
from ernie_rt.conformance.report import Result
from ernie_rt.sampling.philox import noise_at
from ernie_rt.sampling.sampler import penalise
from ernie_rt.sampling.state import SamplerState
from support.mutants import NumpyBackend, host_of, sampling

f32 = np.float32


def choose(
    row: Any,
    state: SamplerState,
    *,
    adjust: Callable[[Any, SamplerState], Any] = penalise,
    inclusive: bool = False,
    top_p_first: bool = False,
    last: bool = False,
) -> int:
    """docs/sampling.md in another way, by a sort, with perhaps one thing wrong."""
    params = state.params
    scores = adjust(row, state)
    if not params.temperature:
        return int(len(scores) - 1 - scores[::-1].argmax() if last else scores.argmax())
    scores = scores / f32(params.temperature)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]

    def top_k() -> None:
        nonlocal order
        order = order[: params.top_k or None]

    def top_p() -> None:
        nonlocal order
        weights = np.rint(np.exp(scores[order].astype(float) - float(scores.max())) * 2**30)
        kept = weights >= params.min_p * 2**30
        order, weights = order[kept], weights[kept]
        if params.top_p < 1:
            before, limit = weights.cumsum() - weights, params.top_p * weights.sum()
            order = order[before <= limit if inclusive else before < limit]

    for step in (top_p, top_k) if top_p_first else (top_k, top_p):
        step()
    drawn = scores + noise_at(np.arange(len(scores)), state.seed, state.position)
    return int(order[drawn[order].argmax()])


def elsewhere(**changed: Callable[[SamplerState], Any]) -> Callable[..., int]:
    """The state with something else in it."""

    def chosen(row: Any, state: SamplerState) -> int:
        other = copy(state)
        for name, change in changed.items():
            setattr(other, name, change(state))
        return choose(row, other)

    return chosen


def presence_first(row: Any, state: SamplerState) -> Any:
    """Presence and frequency before repetition."""
    added, repeated = copy(state), copy(state)
    added.params = replace(state.params, repetition_penalty=1.0)
    repeated.params = replace(state.params, presence_penalty=0.0, frequency_penalty=0.0)
    return penalise(penalise(row, added), repeated)


MUTANTS: dict[str, tuple[str, Callable[..., int]]] = {
    "position one off": ("temperature", elsewhere(position=lambda state: state.position + 1)),
    "half a seed": ("temperature", elsewhere(seed=lambda state: state.seed & 0xFFFFFFFF)),
    "top-p with its border": ("top-p-on-its-border", lambda *a: choose(*a, inclusive=True)),
    "top-p before top-k": ("top-k-and-top-p", lambda *a: choose(*a, top_p_first=True)),
    "presence before repetition": ("penalties", lambda *a: choose(*a, adjust=presence_first)),
    "padding": ("greedy", elsewhere(vocab_size=lambda state: None)),
    "ties to the highest id": ("ties", lambda *a: choose(*a, last=True)),
    "no bad words": (
        "masks", elsewhere(params=lambda state: replace(state.params, bad_words=()))
    ),
    "stop ids too soon": ("masks", elsewhere(_unstoppable=lambda state: 0)),
}  # fmt: skip


def checked(chosen: Callable[..., int], *cases: str) -> dict[str, Result]:
    def sample_rows(logits: Any, states: Sequence[SamplerState], device: str) -> Any:
        return np.array([chosen(row, state) for row, state in zip(logits, states, strict=True)], np.int32)

    module = ModuleType("ernie_rt_test_sampler")
    module.sample_rows = sample_rows  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    expectations = Expectations(sampler=f"{module.__name__}:sample_rows")
    suite = Suite("mutant", host_of(NumpyBackend), expectations=expectations)
    checks = {
        str(check).removeprefix("L1/sampler/"): check for check in suite.checks(["L1"]) if "sampler" in str(check)
    }
    return {name: check.run() for name, check in checks.items() if name in (cases or checks)}


def test_a_sampler_of_its_own_way_passes() -> None:
    results = checked(choose)
    assert {result.status for result in results.values()} == {"passed"}, results
    assert sum(result.figures["rows"] for result in results.values()) >= 2000


@pytest.mark.parametrize("name", MUTANTS)
def test_is_seen(name: str) -> None:
    case, chosen = MUTANTS[name]
    assert checked(chosen, case)[case].status == "failed"


@pytest.mark.long
def test_eager_at_the_full_setting() -> None:
    suite = Suite("eager", full=True, dtype="float32")
    results = [check.run() for check in suite.checks(["L1"]) if str(check).startswith("L1/sampler/")]
    assert {result.status for result in results} == {"passed"}
    assert sum(result.figures["rows"] for result in results) >= 100_000


def test_an_executable_that_samples_is_watched() -> None:
    def result(backend: type, full: bool = False) -> Result:
        suite = Suite("mutant", host_of(backend), full=full)
        (check,) = (check for check in suite.checks(["L3"]) if str(check) == "L3/dense/tokens")
        return check.run()

    seen = result(sampling())
    assert seen.status == "passed" and seen.figures["rows"] >= 1000
    assert result(NumpyBackend).reason == "it leaves the choice of tokens to the core"
