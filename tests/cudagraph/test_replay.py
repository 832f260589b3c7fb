"""Recorded steps on a CPU stand-in for capture: sequences come and go, pages move, every graph is replayed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import ernie_rt
from ernie_rt.contract import LAST_DRAWN, NO_NUMBER, Draws, Step
from ernie_rt.errors import BackendError
from ernie_rt.generation.options import GenerateOptions
from ernie_rt.runtime.engine import Engine
from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.sampling.params import SamplingParams
from ernie_rt.session import Model
from ernie_rt.vision.positions import rope_positions
from ernie_rt_bench.ops import Timed
from ernie_rt_cudagraph.backend import CudaGraphBackend
from ernie_rt_cudagraph.executable import CudaGraphExecutable
from ernie_rt_cudagraph.planner import buckets
from ernie_rt_cudagraph.replay import Directly
from support import sighted
from support.pages import admitted
from support.recorded import Recorder
from support.rehearsal import CONTEXT, PROMPTS, WITH_VISION, Visit, Weights, drive, reference, traffic

pytestmark = pytest.mark.usefixtures("coarse")

SEQUENCES = 3


def load(
    name: str, recorder: Directly | Recorder, *, sequences: int = SEQUENCES, cache_tokens: int | None = None
) -> tuple[Model, CudaGraphExecutable]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CudaGraphBackend, "recorder", recorder)
        model = ernie_rt.load(
            WITH_VISION[name], backend="cudagraph", dtype="float32", weights=Weights(), max_context=CONTEXT,
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


def test_a_step_that_cannot_be_recorded_is_a_named_error() -> None:
    class Failing(Recorder):
        def record(self, *_: object) -> Any:
            raise RuntimeError("no memory")

    with pytest.raises(BackendError, match="3 sequences: a step could not be recorded") as caught:
        load("moe", Failing())
    assert "RuntimeError: no memory" in str(caught.value) and "--no-graphs" in str(caught.value)


def test_every_graph_while_sequences_come_and_go_and_pages_move() -> None:
    """There are too few pages for all, so that one gives way and comes again, to other pages."""
    recorder = Recorder()
    _, executable = load("moe", recorder, cache_tokens=48)
    engine = Engine(executable, CONTEXT)
    visits = [
        Visit(PROMPTS[i], arrives=step, max_new_tokens=most, leaves=leaves, ignore_eos=True)
        for step, (i, most, leaves) in enumerate(((6, 6, None), (10, 9, None), (4, 6, None), (7, 6, 3)))
    ]
    drive(engine, "moe", visits)
    assert admitted(engine) > len(visits), "none gave way"
    hot = SamplingParams(temperature=1.0, seed=1)
    for _ in engine.run(*[engine.submit(Request(PROMPTS[2], 2 + i, sampling=hot)) for i in range(SEQUENCES)]):
        pass
    assert all(recorder.replayed), "some graph was not replayed"


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_VISION)
def test_traffic(name: str) -> None:
    recorder = Recorder()
    model, _ = load(name, recorder, sequences=6)
    finishes = {sequence.finish for sequence in drive(model._engine, name, traffic(name))}
    assert finishes == {"stop", "length", "cancelled"}
    assert np.count_nonzero(recorder.replayed[::2]) >= 4, "of the five greedy graphs few were replayed"


def test_what_is_said_of_a_picture() -> None:
    """The prompt runs block by block, and every decode is replayed, together with another's: behind a picture positions
    are not the places of tokens, and what is drawn may be an id of vision's, which other experts serve."""
    recorder = Recorder()
    first, item = WITH_VISION["vl"].config.sees.image_token_id, sighted.picture(2, 3)
    ids = (7, *[first] * item.tokens, 8, 9)
    positions = PerToken(rope_positions(len(ids), [(1, item.merged)]), "count")
    model, _ = load("vl", recorder, sequences=2)
    seen = Request(ids, 6, items=(PlacedItem(1, item),), inputs={POSITIONS: positions})
    unseen = Request(PROMPTS[2], 6)
    told = []
    for engine in (model._engine, reference("vl")._engine):
        sequences = [engine.submit(replace(request)) for request in (seen, unseen)]
        list(engine.run(*sequences))
        told.append([sequence.generated for sequence in sequences])
    assert told[0] == told[1]
    assert min(told[0][0]) < first <= max(told[0][0]), "one pool alone was asked"
    assert sum(recorder.replayed) == 6, "one of the other's, before the picture is encoded, and five of both"


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


def test_a_step_is_timed_block_by_block_and_draws_the_same_token() -> None:
    """Of tokens that were last drawn on the device, so that steps that are timed and others may follow one another."""
    model, executable = load("moe", Recorder())
    tokens: list[int] = []
    with model:
        watched = Timed(executable)
        for engine in (Engine(watched, CONTEXT), Engine(executable, CONTEXT)):
            sequence = engine.submit(Request(PROMPTS[2], 3))
            assert sum(1 for _ in engine.run(sequence)) == 3
            tokens += sequence.tokens[-3:]
        blocks = {node.outputs[0].name for node in model.lowering.graph.nodes}
    assert tokens[:3] == tokens[3:]
    assert len(watched.steps) >= 3 and all(times.nodes.keys() == blocks for times in watched.steps)
    assert watched.steps[0].others.keys() == {"inputs to tensors", "drawing tokens"}


@pytest.mark.parametrize("recorder", [Recorder(), Directly()])
def test_a_sequence_of_no_number_goes_wrong_alone(recorder: Recorder | Directly) -> None:
    """The next step is under way when the host reads that the last one drew nothing."""
    _, executable = load("dense", recorder, sequences=2)
    draws = Draws.greedy(2, 61)

    def step(ids: list[int], past: int) -> Step:
        each = np.arange(2, dtype=np.int32)
        return Step(
            ids=np.array(ids, np.int32), query_start=np.arange(3, dtype=np.int32) * (len(ids) // 2),
            past=np.full(2, past, np.int32), tables=each[:, None], page_size=executable.cache.page_size, seats=each,
            rows=(each + 1) * (len(ids) // 2) - 1, fetch=np.zeros(0, np.int32), draws=draws,
        )  # fmt: skip

    def drawn(ids: list[int], past: int) -> list[int]:
        tokens = executable.submit(step(ids, past)).result().tokens
        assert tokens is not None
        return tokens.ravel().tolist()

    drawn([1, 2, 3, 4], 0)
    for cache in executable._caches.values():
        cache.v[executable.cache.page_size] = torch.nan  # the first row of the second sequence
    told = [drawn([LAST_DRAWN, LAST_DRAWN], past) for past in (2, 3)]
    assert [wrong for _, wrong in told] == [NO_NUMBER, NO_NUMBER]
    assert all(fine != NO_NUMBER for fine, _ in told)


def test_what_fails_while_it_is_recorded_is_named_and_leaves_nothing() -> None:
    class Failing(Recorder):
        """As PyTorch does: a capture that went wrong cannot be ended either."""

        def record(self, work: object) -> object:
            if len(self.replayed) < 2:
                return super().record(work)  # type: ignore[type-var,arg-type]
            try:
                raise RuntimeError("operation not permitted when stream is capturing")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(BackendError, match=r"2 sequences.*not permitted.*--no-graphs"):
        load("dense", Failing())


def test_what_ran_is_told() -> None:
    """Decodes from recorded graphs, and none of them where nothing can be recorded: which is a finding."""
    _, executable = load("dense", Recorder())
    drive(Engine(executable, CONTEXT), "dense", [Visit((1, 2, 3), max_new_tokens=4, ignore_eos=True)])
    told = executable.executed()
    assert told.notes[0].startswith("3 decodes from ") and not told.findings and told.pieces.keys() == {"cpu"}
    _, executable = load("dense", Recorder())
    (finding,) = executable.executed().findings
    assert finding.severity == "slow" and "none was of decodes alone" in finding.seen
    _, executable = load("dense", Directly())
    assert executable.executed().notes[0] == "0 decodes kernel by kernel"
