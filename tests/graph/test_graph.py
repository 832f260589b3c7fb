from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Container

import pytest

from ernie_rt.contract import Limits, PagedContents
from ernie_rt.errors import GraphError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.cost import active_parameters, distinct_experts, graph_cost, live_bytes, node_cost, parameters
from ernie_rt.graph.graph import Graph, Node, graph_text
from ernie_rt.graph.json import graph_from_json, graph_to_json
from ernie_rt.graph.legalize import Accept, Reject, legalize
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.graph.verify import verify
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.families import find
from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt.weights.manifest import STORAGES
from support.configs import small

ONE_TOKEN = {"N": 1, "C": 1, "L": 1}


def family(name: str) -> Graph:
    found = find(name)
    assert found is not None
    return build_graph(found.config)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("0.3B", 360_748_032, 360_748_032),
        ("21B-A3B", 21_825_437_888, 3_352_150_208),
        ("300B-A47B", 299_484_163_264, 47_926_586_560),
    ],
)
def test_parameter_totals(name: str, total: int, active: int) -> None:
    graph = family(name)
    assert parameters(graph) == total
    assert active_parameters(graph) == active


def test_what_is_alive_at_once() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("N", 8)))
    wide = b("concat", b("add", x, x), x, axis=1)  # [N, 16], while the sum `[N, 8]` is still read
    narrow = b("slice", wide, axis=1, start=0, stop=4)  # [N, 4]: the last to read it
    graph = b.finish("main", {"logits": b("add", narrow, narrow)})
    assert live_bytes(graph, {"N": 10}) == 4 * 10 * (8 + 16)


@pytest.mark.parametrize("sizes", [(1, 1), (40, 1), (64, 64)])
@pytest.mark.parametrize("config", [small(), small(model_type="ernie4_5"), small(use_bias=True)])
def test_what_is_alive_does_not_depend_on_how_far_a_graph_is_lowered(
    config: ModelConfig, sizes: tuple[int, int]
) -> None:
    graph, bindings = build_graph(config), {"N": sizes[0], "L": sizes[1], "C": 64, "P": 64}
    for blocks in ({"moe"}, {"moe", "mlp_block"}, {"embed", "head"}):

        def claims(node: Node, kept: Container[str] = blocks) -> Accept | Reject:
            larger = node.spec.level == "block" or node.op == "moe"
            return Reject("smaller pieces") if larger and node.op not in kept else Accept()

        assert live_bytes(legalize(graph, claims).graph, bindings) == live_bytes(graph, bindings)


def test_decode_reads_the_active_weights_and_multiplies_each_once() -> None:
    graph = family("21B-A3B")
    cost = graph_cost(graph, {"N": 1, "C": 4096, "L": 1})
    active = active_parameters(graph)
    assert cost.weight_bytes == pytest.approx(2 * active, rel=0.002)  # the router is float32
    matmuls = 2 * active + 28 * 4 * 4096 * 20 * 128  # two FLOPs a weight, and the scores and sums of attention
    assert cost.flops == pytest.approx(matmuls, rel=0.001)
    assert cost.cache_bytes == 57_344 * 4097  # every row of the context is read and one is written


@pytest.mark.parametrize("new", [1, 2, 3, 7])
def test_attention_counts_the_rows_that_each_token_sees(new: int) -> None:
    """Two FLOPs a number for the scores, two for the sum: of one causal sequence, here behind 10 rows of context."""
    config = small(model_type="ernie4_5")
    kept = {name for name, op in OPS.items() if op.level == "primitive"} | {"attention"}
    lowered = legalize(build_graph(config), lambda node: Accept() if node.op in kept else Reject("smaller pieces"))
    nodes = [node for node in lowered.graph.nodes if node.op == "attention"]
    seen = sum(10 + token for token in range(1, new + 1))
    assert len(nodes) == config.num_hidden_layers
    for node in nodes:
        counted = node_cost(node, {"N": new, "C": 10 + new, "L": 1}).flops
        assert counted == 4 * seen * config.num_attention_heads * config.head_dim


def test_experts_touched_by_a_batch() -> None:
    assert distinct_experts(64, 6, 1) == pytest.approx(6)
    assert distinct_experts(64, 6, 8) == pytest.approx(34.9, abs=0.05)
    assert distinct_experts(64, 6, 10_000) == pytest.approx(64)


def test_a_lowering_to_smaller_pieces_multiplies_as_much() -> None:
    graph = build_graph(small(model_type="ernie4_5"))
    lowered = legalize(graph, lambda node: Accept() if OPS[node.op].level != "block" else Reject("block"))
    bindings = {"N": 5, "C": 9, "L": 1}
    assert graph_cost(lowered.graph, bindings).flops == graph_cost(graph, bindings).flops


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_every_level_verifies_and_survives_json(dtype: str) -> None:
    graph = build_graph(small(use_bias=True), dtype)  # type: ignore[arg-type]
    for levels in ({"block", "composite", "primitive"}, {"composite", "primitive"}, {"primitive"}):
        lowered = legalize(graph, lambda node, kept=levels: Accept() if OPS[node.op].level in kept else Reject("level"))
        assert {OPS[node.op].level for node in lowered.graph.nodes} <= levels
        verify(lowered.graph)
        assert graph_from_json(json.loads(json.dumps(graph_to_json(lowered.graph))), STORAGES) == lowered.graph


def test_a_graph_of_the_largest_model_is_small_as_json() -> None:
    assert len(json.dumps(graph_to_json(family("300B-A47B")))) < 400_000


def test_text_names_everything_a_reader_needs() -> None:
    text = str(build_graph(small()))
    assert "%4: f32[N, 16] = moe_block(%3, @.norm, @.gate, @.correction_bias, @.experts.gate_up" in text
    assert "state  $layers.0.kv: f32[R, 2, 2, 8]" in text
    assert text.count("moe_block(") == 2
    assert "output logits = %7: f32[L, 61]" in text


def test_folding_counts_what_repeats_and_keeps_what_differs() -> None:
    text = graph_text(build_graph(small(num_hidden_layers=6)), fold=True)
    assert text.count("moe_block(") == 1
    assert text.count("mlp_block(") == 1
    assert "… and 4 more alike, up to layers.5" in text
    every_other = graph_text(build_graph(small(num_hidden_layers=6, moe_layer_interval=2)), fold=True)
    assert "moe_block(" in every_other
    assert "more alike" not in every_other.split("embed", 1)[1]


def test_builder_names_op_scope_and_shapes() -> None:
    b = Builder()
    x = b.input("x", TensorType("bfloat16", ("N", 3072)))
    weight = Weight("w", TensorType("bfloat16", (7, 9)), Plain("bfloat16"))
    with b.scope("layers.2"), pytest.raises(GraphError, match=r"layers\.2: linear: bf16\[N, 3072\] @ bf16\[7, 9\]ᵀ"):
        b("linear", x, weight)
    with pytest.raises(GraphError, match="there is no op 'lineer'"):
        b("lineer", x)
    with pytest.raises(GraphError, match=r"expected rms_norm\(x, weight; eps\)"):
        b("rms_norm", x, weight)
    with pytest.raises(GraphError, match="needs its operand 'weight'"):
        b("rms_norm", x, eps=1e-5)


def test_a_state_has_a_storage_and_rows_of_its_own_kind() -> None:
    b = Builder()
    kv = b.state("layers.0.kv", TensorType("bfloat16", ("R", 2, 4, 32)), BlockQuantized(8, 32))
    last = b.state("last", TensorType("float32", ("S", 64)))
    assert last.storage == Plain("float32")
    assert kv.nbytes({"R": 10, "S": 3}) == 10 * 2 * 4 * (32 + 2)
    assert last.nbytes({"R": 10, "S": 3}) == 3 * 64 * 4
    graph = b.finish("main", {})
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph))), STORAGES) == graph
    assert legalize(graph, lambda node: Accept()).graph == graph
    contents = PagedContents.of({"main": legalize(graph, lambda node: Accept())}, Limits(20, max_sequences=3))
    assert contents.report().cache_bytes == 3 * 32 * 2 * 4 * (32 + 2) + 3 * 64 * 4


@pytest.mark.parametrize(
    "rule",
    [
        lambda b, x, i: b("add", x, i),
        lambda b, x, i: b("matmul", x, x),
        lambda b, x, i: b("reshape", x, dims=("N", 5)),
        lambda b, x, i: b("transpose", x, perm=(0, 0)),
        lambda b, x, i: b("slice", x, axis=1, start=2, stop=9),
        lambda b, x, i: b("slice", x, axis=0, start=0, stop=1),
        lambda b, x, i: b("concat", x, x, axis=0),
        lambda b, x, i: b("top_k", x, k=9),
        lambda b, x, i: b("take_rows", x, x),
        lambda b, x, i: b("sum", x, axis=2, keepdims=True),
        lambda b, x, i: b("where", x, x, otherwise=0.0),
        lambda b, x, i: b("swiglu", x),
        lambda b, x, i: b("softmax", i),
        lambda b, x, i: b("logical_and", i, i),
    ],
)
def test_shape_rules_refuse(rule: object) -> None:
    b = Builder()
    x, i = b.input("x", TensorType("float32", ("N", 8))), b.input("i", TensorType("int32", ("N",)))
    with pytest.raises(GraphError):
        rule(b, x, i)  # type: ignore[operator]


def broken(graph: Graph, **changes: object) -> Graph:
    """The graph with its third node changed."""
    nodes = list(graph.nodes)
    nodes[2] = dataclasses.replace(nodes[2], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def test_verify_refuses_what_a_builder_never_makes() -> None:
    graph = build_graph(small())
    third = graph.nodes[2]
    verify(graph)
    with pytest.raises(GraphError, match="which nothing before it defines"):
        verify(broken(graph, inputs=(graph.nodes[4].outputs[0], *third.inputs[1:])))
    with pytest.raises(GraphError, match="is defined twice"):
        verify(broken(graph, outputs=graph.nodes[1].outputs))
    with pytest.raises(GraphError, match="declares other outputs"):
        wide = dataclasses.replace(third.outputs[0], type=TensorType("float32", ("N", 17)))
        verify(broken(graph, outputs=(wide,)))
    with pytest.raises(GraphError, match="there is no op"):
        verify(broken(graph, op="mlp_blok"))
    with pytest.raises(GraphError, match="described in two ways"):
        renamed = dataclasses.replace(third.inputs[1], name="layers.0.attention.norm", storage=Plain("float16"))
        verify(broken(graph, inputs=(third.inputs[0], renamed, *third.inputs[2:])))
    with pytest.raises(GraphError, match="is not declared"):
        verify(dataclasses.replace(graph, states=()))
    with pytest.raises(GraphError, match="is declared twice"):
        verify(dataclasses.replace(graph, inputs=graph.inputs + graph.inputs[:1]))
    with pytest.raises(GraphError, match="which nothing defines"):
        verify(dataclasses.replace(graph, nodes=graph.nodes[:-1]))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format=1),
        lambda data: data.pop("nodes"),
        lambda data: data["nodes"][0].update(inputs=["%nowhere", "@embed.weight"]),
        lambda data: data["weights"][0].update(storage={"kind": "int3"}),
        lambda data: data["weights"][0].update(dtype="float8"),
        lambda data: data["nodes"][1].update(attrs={}),
        lambda data: data.update(outputs=["logits"]),
    ],
)
def test_json_that_is_no_graph_is_refused(change: object) -> None:
    data = graph_to_json(build_graph(small()))
    change(data)  # type: ignore[operator]
    with pytest.raises(GraphError):
        graph_from_json(data, STORAGES)


def test_infinity_is_the_only_attribute_that_json_cannot_say() -> None:
    """`where(…, otherwise=-inf)` travels as Python's -Infinity, which our own reader of untrusted JSON refuses."""
    graph = legalize(
        build_graph(small()), lambda node: Accept() if OPS[node.op].level == "primitive" else Reject("level")
    )
    found = {
        value for node in graph.graph.nodes for _, value in node.attrs if isinstance(value, float) and math.isinf(value)
    }
    assert found <= {-math.inf}
