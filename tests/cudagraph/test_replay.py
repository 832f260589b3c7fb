"""Recorded steps on a CPU stand-in for capture: sequences come and go, pages move, every graph is replayed."""

from __future__ import annotations

import numpy as np
import pytest

import ernie_rt
from ernie_rt.errors import BackendError
from ernie_rt.runtime.engine import Engine
from ernie_rt.session import Model
from ernie_rt_cudagraph.backend import CudaGraphBackend
from ernie_rt_cudagraph.executable import CudaGraphExecutable
from ernie_rt_cudagraph.replay import Directly, buckets
from support.pages import admitted
from support.recorded import Recorder
from support.rehearsal import CONTEXT, MODELS, PROMPTS, Visit, Weights, drive, traffic

SEQUENCES = 6


def load(name: str, recorder: Directly | Recorder, **options: object) -> tuple[Model, CudaGraphExecutable]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CudaGraphBackend, "recorder", recorder)
        model = ernie_rt.load(
            MODELS[name], backend="cudagraph", dtype="float32", weights=Weights(), max_context=CONTEXT,
            max_sequences=SEQUENCES, max_batch_tokens=20, **options,
        )  # fmt: skip
    executable = model._engine._executable
    assert isinstance(executable, CudaGraphExecutable)
    return model, executable


def test_buckets_hold_any_number_of_sequences_with_little_to_spare() -> None:
    for most in range(1, 600):
        sizes = buckets(most)
        assert sizes[-1] >= min(most, 512) and sizes == tuple(sorted(set(sizes)))
        assert all(next(size for size in sizes if size >= n) <= max(2 * n, 4) for n in range(1, min(most, 512) + 1))


@pytest.mark.parametrize("name", MODELS)
def test_traffic(name: str) -> None:
    recorder = Recorder()
    _, executable = load(name, recorder)
    finishes = {sequence.finish for sequence in drive(Engine(executable, CONTEXT), name, traffic(name))}
    assert finishes == {"stop", "length", "cancelled"}


def test_every_graph_after_pages_moved() -> None:
    """Too few pages for all, so that some give way and come again, to other pages; then all leave, one by one."""
    recorder = Recorder()
    _, executable = load("moe", recorder, cache_tokens=112)
    engine = Engine(executable, CONTEXT)
    visits = [
        Visit(PROMPTS[i % len(PROMPTS)][:9], max_new_tokens=20 + 2 * i, ignore_eos=True) for i in range(SEQUENCES)
    ]
    drive(engine, "moe", visits)
    assert admitted(engine) > len(visits)
    greedy = dict(zip([key for key in executable._replays if key[1]], recorder.replayed[::2], strict=True))
    assert all(count > 0 for count in greedy.values()), greedy


def test_bitwise_the_same_with_and_without_graphs() -> None:
    options = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "seed": 5, "max_new_tokens": 8, "ignore_eos": True}
    answers = []
    for recorder in (Recorder(), Directly()):
        model, _ = load("moe", recorder)
        with model:
            drawn = model.generate_batch(PROMPTS[:5], **options)
            logits = model.logits_batch(PROMPTS[:3], chunk=1)
        answers.append((drawn, logits))
    (drawn, logits), (drawn_directly, logits_directly) = answers
    assert drawn == drawn_directly
    assert all(np.array_equal(one, other) for one, other in zip(logits, logits_directly, strict=True))


def test_what_fails_while_it_is_recorded_is_named() -> None:
    class Failing:
        def record(self, work: object) -> object:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(BackendError, match=r"6 sequences.*not permitted.*--no-graphs"):
        load("dense", Failing())  # type: ignore[arg-type]
