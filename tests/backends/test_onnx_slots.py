"""The contract with slots: one contiguous region a sequence, prefills one at a time, decodes over slots 0 to n - 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
import ernie_rt
from ernie_rt.contract import Done, Step
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.sequence import Request
from ernie_rt.session import Model
from ernie_rt_onnx.executable import OnnxExecutable
from support.rehearsal import CONTEXT, MODELS, PROMPTS, Weights, drive, error, expected_logits, expected_tokens, traffic

SLOTS = 4
TOLERANCE = 2e-5


class Watched:
    """An executable that remembers its steps and copies; a row that is read before it is written is NaN."""

    def __init__(self, inner: OnnxExecutable) -> None:
        self.inner = inner
        self.cache, self.admits, self.ahead = inner.cache, inner.admits, inner.ahead
        self.steps: list[Step] = []
        self.copies: list[tuple[int, int, int]] = []
        for cache in inner.caches.values():
            cache.owner.fill(np.nan)

    def submit(self, step: Step) -> Done:
        self.steps.append(step)
        return self.inner.submit(step)

    def copy(self, source: int, destination: int, length: int) -> None:
        self.copies.append((source, destination, length))
        self.inner.copy(source, destination, length)
        for cache in self.inner.caches.values():
            cache.owner[destination, :, length:] = np.nan

    def close(self) -> None:
        self.inner.close()


Loaded = tuple[str, Model, Watched]


@pytest.fixture(scope="module", params=MODELS)
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with ernie_rt.load(
        MODELS[request.param], backend="onnx", weights=Weights(), dtype="float32", max_context=CONTEXT,
        max_sequences=SLOTS, max_batch_tokens=16,
    ) as model:  # fmt: skip
        assert isinstance(model._executable, OnnxExecutable)
        watched = Watched(model._executable)
        model._engine = Engine(watched, CONTEXT)
        yield request.param, model, watched


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_logits(loaded: Loaded, chunk: int | None) -> None:
    name, model, _ = loaded
    for ids, logits in zip(PROMPTS, model.logits_batch(PROMPTS, chunk=chunk), strict=True):
        assert logits.dtype == np.float32
        assert error(logits, expected_logits(name, ids)) < TOLERANCE


def test_tokens_of_many_sequences(loaded: Loaded) -> None:
    name, model, executable = loaded
    before = len(executable.copies)
    tokens = model.generate_batch(PROMPTS, max_new_tokens=12)
    assert tokens == [expected_tokens(name, ids, 12) for ids in PROMPTS]
    assert len({len(new) for new in tokens}) > 2  # they ended at different times …
    assert len(executable.copies) > before  # … so that slots were moved down


def test_traffic(loaded: Loaded) -> None:
    name, _, executable = loaded
    executable.steps.clear()
    executable.copies.clear()
    finishes = {sequence.finish for sequence in drive(Engine(executable, CONTEXT), name, traffic(name))}
    assert finishes == {"stop", "length", "cancelled"}
    assert executable.copies
    decodes = [step for step in executable.steps if (step.new == 1).all()]
    assert {len(step.new) for step in decodes} == set(range(1, SLOTS + 1))
    assert any(step.past[0] > 0 for step in executable.steps if step.new[0] > 1)  # a later chunk of a prompt


def test_the_last_slot_moves_to_the_one_that_falls_free(loaded: Loaded) -> None:
    name, _, executable = loaded
    executable.copies.clear()
    engine = Engine(executable, CONTEXT, reuse=False)
    lengths = (8, 3, 8)
    sequences = [engine.submit(Request(ids, new)) for ids, new in zip(PROMPTS, lengths, strict=False)]
    for _ in engine.run(*sequences):
        pass
    for sequence, ids, new in zip(sequences, PROMPTS, lengths, strict=False):
        assert sequence.generated == expected_tokens(name, ids, new, ignore_eos=True)
    # The second, whose prompt is one token, decodes once between the two longer prompts, and then beside both others.
    # It ends after two such steps, in which the third got two rows more than its prompt.
    assert executable.copies[0] == (2, 1, len(PROMPTS[2]) + 2)


@pytest.mark.parametrize("name", MODELS)
def test_taps_are_outputs(name: str) -> None:
    scopes = ["layers.1.mlp.norm", "layers.0.attention", "layers.1.mlp.residual"]
    values = {}
    for backend, dtype in (("onnx", "float32"), ("reference", "float64")):
        with ernie_rt.load(
            MODELS[name], backend=backend, dtype=dtype, weights=Weights(), max_context=CONTEXT, taps=scopes
        ) as model:
            values[backend] = model.tapped(PROMPTS[0])
    assert set(values["reference"]) == set(values["onnx"]) == set(scopes)
    for scope in scopes:
        assert error(values["onnx"][scope], values["reference"][scope]) < TOLERANCE


def test_as_many_slots_as_the_cache_has_room_for() -> None:
    for tokens, slots in ((CONTEXT, 1), (3 * CONTEXT - 1, 2), (99 * CONTEXT, SLOTS), (None, SLOTS)):
        with ernie_rt.load(
            MODELS["dense"], backend="onnx", weights=Weights(), dtype="float32", max_context=CONTEXT,
            max_sequences=SLOTS, cache_tokens=tokens,
        ) as model:  # fmt: skip
            assert model._executable.cache.pages == slots
            assert model.generate_batch(PROMPTS[:3], max_new_tokens=3, ignore_eos=True) == [
                expected_tokens("dense", ids, 3, ignore_eos=True) for ids in PROMPTS[:3]
            ]
