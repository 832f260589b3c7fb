"""Routers as nodes of their own, and beside each with a correction bias one without."""

from __future__ import annotations

import pytest

from ernie_rt.errors import OptionError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import Accept, Reject, legalize
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.routers import Router, open_routers
from ernie_rt.graph.verify import verify
from ernie_rt.modeling.ernie45 import build_graph
from support.configs import small


@pytest.fixture
def graph() -> Graph:
    return build_graph(small())


def test_each_router_stands_beside_one_without_its_bias(graph: Graph) -> None:
    opened, routers = open_routers(graph)
    verify(opened)
    assert routers == (Router("layers.1.mlp.route", 6, 2, True), Router("layers.2.mlp.route", 6, 2, True))
    outputs, known = ([(name, value.type) for name, value in each.outputs] for each in (opened, graph))
    assert outputs == known and opened.weights == graph.weights and opened.states == graph.states
    pairs = [node for node in opened.nodes if node.op == "moe_route"]
    scopes = [scope for router in routers for scope in (router.scope, f"{router.scope}.unbiased")]
    assert [node.scope for node in pairs] == scopes
    for biased, unbiased in zip(pairs[::2], pairs[1::2], strict=True):
        assert biased.inputs[:2] == unbiased.inputs[:2] and biased.attrs == unbiased.attrs
        assert biased.inputs[2] is not None and unbiased.inputs[2] is None
    experts = [node for node in opened.nodes if node.op == "moe_experts"]
    assert [node.inputs[1:3] for node in experts] == [node.outputs for node in pairs[::2]]


def test_a_router_without_a_bias_stands_alone() -> None:
    opened, routers = open_routers(build_graph(small(moe_use_aux_free=False)))
    assert [node.scope for node in opened.nodes if node.op == "moe_route"] == [router.scope for router in routers]
    assert [router.taps for router in routers] == [
        ("layers.1.mlp.route", "layers.1.mlp.route:1"),
        ("layers.2.mlp.route", "layers.2.mlp.route:1"),
    ]


def test_a_dense_model_has_none() -> None:
    graph = build_graph(small(model_type="ernie4_5"))
    assert open_routers(graph) == (graph, ())


@pytest.mark.parametrize("level", ["primitive", "composite"])
def test_taps_reach_both_outputs_however_far_a_router_is_lowered(graph: Graph, level: str) -> None:
    opened, routers = open_routers(graph)
    known = {name for name, op in OPS.items() if op.level in ("primitive", level)}
    taps = [tap for router in routers for tap in router.taps]
    lowering = legalize(opened, lambda node: Accept() if node.op in known else Reject("larger"), taps)
    verify(lowering.graph)
    found = dict(lowering.taps)
    assert found.keys() == set(taps)
    for router in routers:
        assert [str(found[tap].type) for tap in router.taps] == ["i32[N, 2]", "f32[N, 2]", "i32[N, 2]"]


@pytest.mark.parametrize("tap", ["layers.1.mlp.route:2", "layers.1.mlp.norm:1", "layers.1.mlp.route:0", "layers.1:x"])
def test_an_output_that_is_not_there(graph: Graph, tap: str) -> None:
    with pytest.raises(OptionError, match="no scope"):
        legalize(graph, lambda node: Accept() if node.spec.decompose is None else Reject("larger"), [tap])


def test_a_second_output_alone_splits_the_piece_that_holds_it(graph: Graph) -> None:
    lowering = legalize(graph, lambda node: Accept(), ["layers.2.mlp.route:1"])
    assert [node.scope for node in lowering.graph.nodes if node.op == "moe_route"] == ["layers.2.mlp.route"]
    ((_, value),) = lowering.taps
    assert str(value.type) == "f32[N, 2]"
