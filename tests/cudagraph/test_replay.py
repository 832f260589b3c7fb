"""Recorded steps on a CPU stand-in for capture: sequences come and go, pages move, every graph is replayed."""

from __future__ import annotations

import numpy as np
import pytest

import ernie_rt
from ernie_rt.errors import BackendError
from ernie_rt.generation.options import GenerateOptions
from ernie_rt.runtime.engine import Engine
from ernie_rt.session import Model
from ernie_rt_cudagraph.backend import CudaGraphBackend
from ernie_rt_cudagraph.executable import CudaGraphExecutable
from ernie_rt_cudagraph.replay import Directly, buckets
from support.pages import admitted
from support.recorded import Recorder
from support.rehearsal import CONTEXT, MODELS, PROMPTS, Visit, Weights, drive, traffic

pytestmark = pytest.mark.usefixtures("coarse")

SEQUENCES = 3


def load(
    name: str, recorder: Directly | Recorder, *, sequences: int = SEQUENCES, cache_tokens: int | None = None
) -> tuple[Model, CudaGraphExecutable]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CudaGraphBackend, "recorder", recorder)
        model = ernie_rt.load(
            MODELS[name], backend="cudagraph", dtype="float32", weights=Weights(), max_context=CONTEXT,
            max_sequences=sequences, max_batch_tokens=20, cache_tokens=cache_tokens,
        )  # fmt: skip
    executable = model._engine._executable
    assert isinstance(executable, CudaGraphExecutable)
    return model, executable


def test_buckets_hold_any_number_of_sequences_with_little_to_spare() -> None:
    for most in range(1, 600):
        sizes = buckets(most)
        assert sizes[-1] >= min(most, 512) and sizes == tuple(sorted(set(sizes)))
        assert all(next(size for size in sizes if size >= n) <= max(2 * n, 4) for n in range(1, min(most, 512) + 1))


def test_every_graph_while_sequences_come_and_go_and_pages_move() -> None:
    """There are too few pages for all, so that one gives way and comes again, to other pages."""
    recorder = Recorder()
    _, executable = load("moe", recorder, cache_tokens=48)
    engine = Engine(executable, CONTEXT)
    visits = [
        Visit(PROMPTS[i], arrives=i, max_new_tokens=most, leaves=leaves, ignore_eos=True)
        for i, most, leaves in ((2, 16, None), (1, 18, None), (4, 8, None), (7, 6, 3))
    ]
    drive(engine, "moe", visits)
    assert admitted(engine) > len(visits), "none gave way"
    assert all(recorder.replayed[::2]), "some graph was not replayed"


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_traffic(name: str) -> None:
    recorder = Recorder()
    _, executable = load(name, recorder, sequences=6)
    finishes = {sequence.finish for sequence in drive(Engine(executable, CONTEXT), name, traffic(name))}
    assert finishes == {"stop", "length", "cancelled"} and all(recorder.replayed[::2])


def test_bitwise_the_same_with_and_without_graphs() -> None:
    options: GenerateOptions = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "seed": 5, "max_new_tokens": 3}
    answers = []
    for recorder in (Recorder(), Directly()):
        model, _ = load("moe", recorder)
        with model:
            drawn = model.generate_batch(PROMPTS[1:4], **options)
            (logits,) = model.logits_batch(PROMPTS[2:3], chunk=1)
        answers.append((drawn, logits))
    (drawn, logits), (drawn_directly, logits_directly) = answers
    assert drawn == drawn_directly
    assert np.array_equal(logits, logits_directly)


def test_what_fails_while_it_is_recorded_is_named() -> None:
    class Failing:
        def record(self, work: object) -> object:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(BackendError, match=r"3 sequences.*not permitted.*--no-graphs"):
        load("dense", Failing())  # type: ignore[arg-type]
