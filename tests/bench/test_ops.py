"""A step's parts: nodes of one op and place together, and everything that is no node by its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ernie_rt
from ernie_rt.contract import StepTimes
from ernie_rt.session import Model
from ernie_rt_bench.ops import UNEXPLAINED, by_op, steps_by_op


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with ernie_rt.load("demo", backend="reference", max_context=64) as loaded:
        yield loaded


def test_layers_count_together_and_the_parts_are_the_whole(model: Model) -> None:
    nodes = model.lowering.graph.nodes
    times = StepTimes(10.0, {node.outputs[0].name: 0.5 for node in nodes[:-1]}, {"inputs": 1.0})
    step = by_op("a token", times, nodes)
    assert sum(part.seconds or 0.0 for part in step.parts) == pytest.approx(step.seconds)
    counts = {part.where: part.count for part in step.parts if part.op}
    assert counts["layers.*.attention"] == model.config.num_hidden_layers
    assert [part.seconds for part in step.parts if part.op == nodes[-1].op] == [None], "nothing is made up"
    others = {part.where: part.seconds for part in step.parts if not part.op}
    assert others["inputs"] == 1.0 and others[UNEXPLAINED] == pytest.approx(9.0 - 0.5 * (len(nodes) - 1))


def test_a_prompt_of_several_steps_is_one(model: Model) -> None:
    with ernie_rt.load("demo", backend="reference", max_context=64, max_batch_tokens=8) as small:
        prompt, token = steps_by_op(small, range(5, 25))
    assert prompt.kind == "prompt of 20" and token.kind == "a token after 20"
    assert prompt.seconds > token.seconds > 0
    assert {part.op for part in prompt.parts} == {part.op for part in token.parts} > {"attention_block", "head"}
