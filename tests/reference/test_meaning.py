"""The reference holds two tables together: what an op means, and what it decomposes into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ernie_rt.conformance.cases import OpCase, op_cases
from ernie_rt.conformance.ops import make_steps
from ernie_rt.contract import Interpreter, Limits, Step, Target
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Lowering, Reject, legalize
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import State, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.reference import ops
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.reference.ops import MEANINGS
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small

CONFIGS = {
    "moe": small(),
    "moe, biases": small(use_bias=True, tie_word_embeddings=False),
    "moe, no shared experts": small(moe_num_shared_experts=0),
    "moe, no correction bias": small(moe_use_aux_free=False),
    "dense": small(model_type="ernie4_5"),
    "dense, biases": small(model_type="ernie4_5", use_bias=True, tie_word_embeddings=False),
}
NUMBERS = Synthetic(1)


def two_sequences() -> Step:
    """Seven new tokens after three of one sequence, and two of a new one, in pages out of order."""
    return Step(
        ids=np.array([5, 7, 1, 0, 60, 2, 9, 11, 13], np.int32),
        query_start=np.array([0, 7, 9], np.int32),
        past=np.array([3, 0], np.int32),
        tables=np.array([[2, 0, 4], [3, -1, -1]], np.int32),
        page_size=4,
        seats=np.array([0, 1], np.int32),
        rows=np.array([6, 8], np.int32),
    )


def run(lowering: Lowering, step: Step) -> np.ndarray[Any, Any]:
    """The logits in float64, after rows of the past that are the same for every lowering."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for operand in (operand for node in lowering.graph.nodes for operand in node.inputs):
        if isinstance(operand, Weight) and operand.name not in arrays:
            arrays[operand.name] = np.empty(operand.type.shape({"P": 64}))
            NUMBERS.fill(operand, "data", arrays[operand.name])
    states = {s.name: generator.standard_normal(s.type.shape({"R": 20})) for s in lowering.graph.states}
    outputs, _ = Interpreter(lowering, MEANINGS, arrays, states).run(
        step.inputs(lowering.graph), step.bindings(lowering.graph)
    )
    logits: np.ndarray[Any, Any] = outputs["logits"]
    return logits


def lower(graph: Graph, op: str) -> Lowering:
    """Every node but those of one op as they are; that op decomposed."""
    return legalize(graph, lambda node: Reject("under test") if node.op == op else Accept())


def test_both_tables_have_the_same_ops() -> None:
    assert set(MEANINGS) == set(OPS)


def test_every_op_is_described() -> None:
    assert all(op.rule.__doc__ for op in OPS.values())
    assert {name for name, op in OPS.items() if op.decompose is None} == {
        name for name, op in OPS.items() if op.level == "primitive"
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_level_means_the_same(name: str) -> None:
    graph, step = build_graph(CONFIGS[name]), two_sequences()
    whole = run(legalize(graph, lambda node: Accept()), step)
    assert np.sqrt(np.mean(whole**2)) > 0.5
    for levels in ({"composite", "primitive"}, {"primitive"}):
        pieces = legalize(graph, lambda node, kept=levels: Accept() if OPS[node.op].level in kept else Reject("level"))
        np.testing.assert_allclose(run(pieces, step), whole, rtol=0, atol=1e-12)


NOT_IN_TEXT = frozenset({"rope_rows", "layer_norm", "gelu"})


@pytest.mark.parametrize("op", sorted({name for name, op in OPS.items() if op.level == "composite"} - NOT_IN_TEXT))
def test_each_composite_means_what_it_decomposes_into(op: str) -> None:
    """One at a time, so that two wrong decompositions cannot make up for each other."""
    graph, step = build_graph(CONFIGS["moe, biases"]), two_sequences()
    composites = legalize(graph, lambda node: Accept() if OPS[node.op].level != "block" else Reject("block")).graph
    for parent in {"rope": ("rope_attention",), "attention": ("rope_attention",), "moe_route": ("moe",)}.get(op, ()):
        composites = lower(composites, parent).graph
    if op == "moe_experts":
        composites = lower(composites, "moe").graph
    assert any(node.op == op for node in composites.nodes)
    whole = run(legalize(composites, lambda node: Accept()), step)
    np.testing.assert_allclose(run(lower(composites, op), step), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "case",
    [case for case in op_cases() if case.op in NOT_IN_TEXT | {"attention", "rope_attention", "moe", "embed"}],
    ids=lambda c: c.key,
)
def test_what_text_models_leave_out_means_what_it_decomposes_into(case: OpCase) -> None:
    """Norms of a tower; attention without a state or an order; rotation by several columns; masks and features."""
    backend, target = ReferenceBackend(), Target(("cpu",), "float64")
    limits = Limits(max(case.lengths), len(case.lengths), 1000)
    found = []
    for lowering in (legalize(case.graph("float64"), lambda node: Accept()), lower(case.graph("float64"), case.op)):
        taps = tuple(lowering.graph.outputs)
        executable = backend.compile({"main": replace(lowering, taps=taps)}, NUMBERS, target, limits)
        steps = make_steps(case, executable, "float64")
        found.append([executable.submit(step).result().taps["output.0"] for step in steps])
    for whole, parts in zip(*found, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_attention_by_hand() -> None:
    """Two tokens of one head, the first alone, the second seeing both."""
    q = np.array([[[1.0, 0.0]], [[0.0, 2.0]]])
    k = np.array([[[3.0, 5.0]], [[1.0, 1.0]]])
    v = np.array([[[1.0, 10.0]], [[2.0, 20.0]]])
    place = np.array([0, 1])
    state = np.full((2, 2, 1, 2), np.nan)
    out = ops.attention(q, k, v, state, place * 0, place, place, place, place * 0, place, scale=0.5)
    weight = np.exp([5.0, 1.0]) / np.exp([5.0, 1.0]).sum()
    np.testing.assert_allclose(out, [[1.0, 10.0], weight @ np.array([[1.0, 10.0], [2.0, 20.0]])])


def test_the_bias_selects_and_the_unbiased_probabilities_weigh() -> None:
    gate = np.log(np.array([[0.5], [0.3], [0.2]]))  # probabilities 0.5, 0.3, 0.2 for the token [1]
    ids, weights = ops.moe_route(np.ones((1, 1)), gate, np.array([0.0, -1.0, 0.5]), top_k=2, norm_min=1e-12)
    assert ids.tolist() == [[2, 0]]
    np.testing.assert_allclose(weights, [[0.2 / 0.7, 0.5 / 0.7]])


def test_ties_go_to_the_lowest_place_and_minus_one_to_nobody() -> None:
    assert ops.top_k(np.array([[1.0, 3.0, 3.0, 0.0]]), k=3).tolist() == [[1, 2, 0]]
    assert ops.one_hot(np.array([1, -1]), depth=2, dtype="float32").tolist() == [[0, 1], [0, 0]]
    x, weights = np.ones((1, 2)), np.ones((1, 2))
    experts = (np.ones((3, 4, 2, 2)), np.ones((3, 2, 4)))
    one = ops.moe_experts(x, np.array([[1, -1]]), weights, *experts, top_k=2)
    np.testing.assert_allclose(2 * one, ops.moe_experts(x, np.array([[1, 2]]), weights, *experts, top_k=2))


def test_rope_turns_adjacent_pairs() -> None:
    x = np.array([[[1.0, 0.0, 0.0, 1.0]]])
    angle = np.array([[np.pi / 2, np.pi]])
    np.testing.assert_allclose(ops.rope(x, np.cos(angle), np.sin(angle)), [[[0.0, 1.0, 0.0, -1.0]]], atol=1e-15)


def test_a_layer_norm_divides_by_the_deviation_of_a_population() -> None:
    x = np.array([[1.0, 3.0], [7.0, 7.0]])
    weight, bias = np.array([2.0, 4.0]), np.array([0.5, -0.5])
    np.testing.assert_allclose(ops.layer_norm(x, weight, bias, eps=3.0), [[-0.5, 1.5], bias])


def test_gelu_is_x_times_a_share() -> None:
    x = np.array([-1.0, 0.0, 1.0, 50.0])
    np.testing.assert_allclose(ops.gelu(x, form="erf"), [-0.158655253931457, 0, 0.841344746068543, 50], rtol=1e-14)
    np.testing.assert_allclose(ops.gelu(x, form="quick"), [-0.154204234067179, 0, 0.845795765932821, 50], rtol=1e-14)


def test_experts_serve_the_tokens_of_their_mask() -> None:
    x, gate, mask = np.eye(3), np.zeros((2, 3)), np.array([True, False, True])
    experts = (np.ones((2, 4, 2, 3)), np.ones((2, 3, 4)))
    whole = ops.moe(x, gate, None, *experts, top_k=1, norm_min=1e-12)
    masked = ops.moe(x, gate, None, *experts, mask, top_k=1, norm_min=1e-12)
    np.testing.assert_array_equal(masked, whole * mask[:, None])
    assert whole.all()


def test_features_take_the_place_of_embeddings() -> None:
    table, features = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [10.0], [20.0]])
    rows = ops.embed(np.array([2, 0, 0, 1]), table, features, np.array([0, 2, 1, 0]))
    np.testing.assert_array_equal(rows, [[3.0], [20.0], [10.0], [2.0]])


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_allclose(ops.sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])


def node_of(config: ModelConfig, op: str) -> Node:
    return next(node for node in build_graph(config).nodes if node.op == op)


def test_a_state_is_written_before_it_is_read() -> None:
    state = node_of(small(), "attention_block").operands["state"]
    assert isinstance(state, State)
    k = np.arange(8.0).reshape(2, 2, 2)
    cache = np.zeros((5, 2, 2, 2))
    keys, values = ops.cache_update(k, -k, cache, np.array([4, 1]), np.array([1, 4]))
    np.testing.assert_array_equal(keys, k[::-1])
    np.testing.assert_array_equal(values, -k[::-1])
