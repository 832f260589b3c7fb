"""How long a step takes and each of its nodes, on every backend: by the same names, and with the same result."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

import ernie_rt
from ernie_rt.contract import CacheShape, ExecutableBase, Pending, Step, StepLimits, StepTimes, Stopwatch
from ernie_rt.session import Model
from support.toy import ToyExecutable


@pytest.fixture(scope="module", params=["reference", "eager", "onnx"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    pytest.importorskip({"eager": "torch", "onnx": "onnxruntime"}.get(request.param, "numpy"))
    with ernie_rt.load("demo", backend=request.param, max_context=64, threads=1) as loaded:
        yield loaded


def test_nodes_by_name(model: Model) -> None:
    executable = model.executable
    assert isinstance(executable, ExecutableBase)
    step = one_page(executable, [5, 6, 7])
    expected = executable.submit(step).result()
    result, times = executable.timed(step)
    np.testing.assert_array_equal(result.logits, expected.logits)
    names = {node.outputs[0].name for node in model.lowering.graph.nodes}
    assert times.nodes.keys() <= names
    assert len(names - times.nodes.keys()) <= 1  # ONNX Runtime computes some together with others
    assert all(seconds >= 0 for seconds in (*times.nodes.values(), *times.others.values()))
    assert 0 < sum(times.nodes.values()) < times.seconds and times.unexplained > -1e-6


def one_page(executable: ExecutableBase, ids: list[int]) -> Step:
    """A step of one sequence in the first pages of the cache, with the logits of its last token."""
    size = executable.cache.page_size
    return Step(
        ids=np.array(ids, np.int32),
        query_start=np.array([0, len(ids)], np.int32),
        past=np.zeros(1, np.int32),
        tables=np.arange(-(-len(ids) // size), dtype=np.int32)[None],
        page_size=size,
        seats=np.zeros(1, np.int32),
        rows=np.array([len(ids) - 1], np.int32),
    )


def test_who_knows_of_no_nodes_still_measures_the_step() -> None:
    class Slow(ToyExecutable):
        def submit(self, step: Step) -> Pending:
            time.sleep(0.01)
            return super().submit(step)

    executable = Slow(CacheShape("paged", 4, 4), StepLimits(8, 1))
    result, times = executable.timed(one_page(executable, [1, 2]))
    assert result.logits is not None
    assert times.seconds >= 0.01 and times.nodes == {} and times.unexplained == times.seconds


def test_a_stopwatch_gives_each_stretch_to_whoever_comes_next() -> None:
    watch = Stopwatch()
    time.sleep(0.004)
    watch.other("inputs")
    time.sleep(0.002)
    watch.node("1")
    watch.node("2")
    times = watch.times()
    assert times.others["inputs"] >= 0.004 and times.nodes["1"] >= 0.002 > times.nodes["2"]
    assert 0 <= times.unexplained < times.seconds


def test_what_remains() -> None:
    assert StepTimes(1.0, {"1": 0.5}, {"inputs": 0.2}).unexplained == pytest.approx(0.3)
