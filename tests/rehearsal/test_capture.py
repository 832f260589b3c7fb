"""The contract with sampling on the device: decodes in fixed sizes, tokens one step late, pages that run out."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import cast

import numpy as np
import pytest

import ernie_rt
from ernie_rt.contract import LAST_DRAWN
from ernie_rt.hooks import hookimpl
from ernie_rt.host import PluginHost
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from ernie_rt.session import Model
from support import capture_backend
from support.capture_backend import CaptureBackend, CaptureExecutable
from support.pages import admitted
from support.rehearsal import (
    CONTEXT,
    MODELS,
    PROMPTS,
    Visit,
    Weights,
    drive,
    error,
    expected_logits,
    expected_tokens,
    traffic,
)

SEQUENCES = 7
TOLERANCE = 1e-12
"""Both are float64; sums run in another order where rows are padded."""


def load(name: str, *, mixed: bool = True, pages: int | None = None) -> tuple[Model, CaptureExecutable]:
    host = PluginHost(extra=[capture_backend])
    backend = host.backend("capture")
    assert isinstance(backend, CaptureBackend)
    backend.mixed, backend.pages = mixed, pages
    model = ernie_rt.load(
        MODELS[name], backend="capture", host=host, weights=Weights(), max_context=CONTEXT,
        max_sequences=SEQUENCES, max_batch_tokens=20,
    )  # fmt: skip
    return model, backend.executables[-1]


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_of_many_sequences(name: str, mixed: bool) -> None:
    model, executable = load(name, mixed=mixed)
    assert model.generate_batch(PROMPTS, max_new_tokens=12) == [expected_tokens(name, ids, 12) for ids in PROMPTS]
    if not mixed:
        assert all((step.new > 1).all() or (step.new == 1).all() for step in executable.steps)
    # Results wait for the next step to be submitted, except where there was none to submit: before the last sequences
    # ended, or new ones could come.
    assert sum(executable.was_ahead) > 0.8 * len(executable.steps)
    assert sum((step.ids == LAST_DRAWN).any() for step in executable.steps) > 0.6 * len(executable.steps)


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_every_size_of_graph(name: str, mixed: bool) -> None:
    """Seven prompts of one token, which end one by one."""
    _, executable = load(name, mixed=mixed)
    visits = [Visit((60 - i,), max_new_tokens=2 * (i + 1), ignore_eos=True) for i in range(SEQUENCES)]
    drive(Engine(executable, CONTEXT), name, visits)
    sizes = {7: 8, 6: 8, 5: 8, 4: 4, 3: 4, 2: 2, 1: 1}
    assert executable.idle_rows == [(rows, rows - live) for live, rows in sizes.items() for _ in range(2)]


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_logits(name: str, chunk: int | None) -> None:
    model, _ = load(name)
    for ids, logits in zip(PROMPTS, model.logits_batch(PROMPTS, chunk=chunk), strict=True):
        assert logits.shape == (len(ids), model.config.vocab_size)
        assert error(logits, expected_logits(name, ids)) < TOLERANCE


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_traffic(name: str, mixed: bool) -> None:
    _, executable = load(name, mixed=mixed)
    finishes = {sequence.finish for sequence in drive(Engine(executable, CONTEXT), name, traffic(name))}
    assert finishes == {"stop", "length", "cancelled"}
    assert any(executable.was_ahead)


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_traffic_with_too_few_pages(name: str, mixed: bool) -> None:
    _, executable = load(name, mixed=mixed, pages=13)
    visits = [visit for visit in traffic(name) if len(visit.ids) + visit.max_new_tokens <= 13 * 4]
    engine = Engine(executable, CONTEXT)
    sequences = drive(engine, name, visits)
    assert admitted(engine) > len(sequences), "some sequences gave way and were admitted anew"
    assert any(executable.was_ahead)


def test_one_sequence_is_a_step_ahead_to_its_end() -> None:
    model, executable = load("dense")
    assert model.generate_ids(PROMPTS[1], max_new_tokens=12, ignore_eos=True) == expected_tokens(
        "dense", PROMPTS[1], 12, ignore_eos=True
    )
    assert executable.was_ahead == [True] * 11 + [False]
    assert [step.ids.tolist() for step in executable.steps] == [list(PROMPTS[1])] + [[LAST_DRAWN]] * 11


def test_what_runs_past_a_stop_is_dropped() -> None:
    """The step after the stop token is under way when the token is read; its rows go to the next sequence."""
    model, executable = load("dense")
    ids = next(ids for ids in PROMPTS if 1 < len(expected_tokens("dense", ids, 12)) < 12)
    tokens = expected_tokens("dense", ids, 12)
    engine = Engine(executable, CONTEXT)
    first = engine.submit(Request(ids, 12, frozenset(model.config.eos_token_id)))
    while first.finish is None:
        engine.step()
    assert first.generated == tokens
    assert len(executable.steps) == len(tokens) + 1
    second = engine.submit(Request(PROMPTS[0], 5))
    for _ in engine.run(second):
        pass
    assert second.generated == expected_tokens("dense", PROMPTS[0], 5, ignore_eos=True)
    reused = {int(step.tables[0, 0]) for step in executable.steps}
    assert len(reused) == 2  # the rows of the first are kept for whoever begins like it
    assert {int(step.seats[0]) for step in executable.steps} == {0}


def test_logits_beside_sampled_tokens() -> None:
    """One step can hold prompts whose logits are wanted and sequences that sample."""
    _, executable = load("moe")
    engine = Engine(executable, CONTEXT)
    told = engine.submit(Request(PROMPTS[0], 8))
    wanted = engine.submit(Request(PROMPTS[3], 0, all_logits=True, chunk=4))
    for _ in engine.run(told, wanted):
        pass
    assert told.generated == expected_tokens("moe", PROMPTS[0], 8, ignore_eos=True)
    assert error(np.concatenate(wanted.logits), expected_logits("moe", PROMPTS[3])) < TOLERANCE
    fetched = [len(step.fetch) / max(len(step.rows), 1) for step in executable.steps if step.fetch is not None]
    assert min(fetched) == 0 and max(fetched) > 0.5


def test_prompts_enter_in_longer_steps_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (info,) = capture_backend.ernie_rt_backends()
    on_gpus = SimpleNamespace(PLUGIN_API=capture_backend.PLUGIN_API, __name__="on_gpus")
    on_gpus.ernie_rt_backends = hookimpl(lambda: [replace(info, dtypes={"cuda": ("float64",)})])
    monkeypatch.setattr(CaptureBackend, "devices", lambda self: ("cuda:0",))
    for given, tokens in ((None, 4096), (20, 20)):
        model = ernie_rt.load(
            MODELS["dense"], backend="capture", host=PluginHost(extra=[cast(ModuleType, on_gpus)]), weights=Weights(),
            max_context=CONTEXT, max_batch_tokens=given,
        )  # fmt: skip
        assert model.limits.max_batch_tokens == tokens
    assert ernie_rt.load(MODELS["dense"], weights=Weights(), max_context=CONTEXT).limits.max_batch_tokens == 512
