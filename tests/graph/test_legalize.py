from __future__ import annotations

import pytest

from ernie_rt.errors import LoweringError, OptionError
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Claim, Reject, inner_scopes, legalize
from ernie_rt.graph.ops import OPS
from ernie_rt.graph.verify import verify
from ernie_rt.modeling.ernie45 import build_graph
from support.configs import small

COMPOSITES = {"rms_norm", "linear", "swiglu", "rope_attention", "moe", "add", "cast", "take_rows"}


def only(*ops: str) -> Claim:
    return lambda node: Accept() if node.op in ops else Reject(f"no {node.op}")


@pytest.fixture
def graph() -> Graph:
    return build_graph(small())


def test_the_largest_claimed_piece_is_kept_and_the_reasons_are_recorded(graph: Graph) -> None:
    lowering = legalize(graph, only(*COMPOSITES))
    assert {node.op for node in lowering.graph.nodes} == COMPOSITES
    refused = [d for d in lowering.decisions if not d.kept]
    assert {(d.op, d.reason) for d in refused} == {
        (op, f"no {op}") for op in ("embed", "attention_block", "mlp_block", "moe_block", "head")
    }
    assert sum(d.kept for d in lowering.decisions) == len(lowering.graph.nodes)


def test_what_is_claimed_whole_is_untouched(graph: Graph) -> None:
    lowering = legalize(graph, lambda node: Accept())
    assert lowering.graph == graph
    assert all(d.kept and not d.reason for d in lowering.decisions)


def test_unclaimed_primitives_are_listed_once_with_scope_and_reason(graph: Graph) -> None:
    primitives = {name for name, op in OPS.items() if op.level == "primitive"}
    with pytest.raises(LoweringError) as caught:
        legalize(graph, only(*(primitives - {"rsqrt", "top_k"})))
    text = str(caught.value)
    assert "rsqrt (layers.0.attention.norm): no rsqrt" in text
    assert "top_k (layers.1.mlp.route): no top_k" in text
    assert text.count("no rsqrt") == 1


def test_a_finer_claim_may_depend_on_the_node(graph: Graph) -> None:
    def claim(node: Node) -> Accept | Reject:
        if node.op == "linear" and node.scope.endswith("gate_up"):
            return Reject("two outputs")
        return only(*COMPOSITES, "matmul", "reshape", "transpose")(node)

    lowering = legalize(graph, claim)
    scopes = {node.scope for node in lowering.graph.nodes if node.op == "matmul"}
    assert scopes == {"layers.0.mlp.gate_up", "layers.1.mlp.shared.gate_up", "layers.2.mlp.shared.gate_up"}


def test_a_tap_inside_a_claimed_piece_splits_that_piece_alone(graph: Graph) -> None:
    lowering = legalize(graph, lambda node: Accept(), taps=["layers.1.mlp.route", "layers.2.mlp"])
    split = [(d.scope, d.op, d.reason) for d in lowering.decisions if not d.kept]
    why = "the tap layers.1.mlp.route lies inside"
    assert split == [("layers.1.mlp", "moe_block", why), ("layers.1.mlp", "moe", why)]
    taps = dict(lowering.taps)
    assert str(taps["layers.1.mlp.route"].type) == "i32[N, 2]"
    assert str(taps["layers.2.mlp"].type) == "f32[N, 16]"
    assert {tap.name for tap in taps.values()} <= {v.name for n in lowering.graph.nodes for v in n.outputs}
    verify(lowering.graph)


def test_a_tap_beside_the_experts_leaves_them_whole(graph: Graph) -> None:
    lowering = legalize(graph, lambda node: Accept(), taps=["layers.1.mlp.norm"])
    assert [d.op for d in lowering.decisions if not d.kept] == ["moe_block"]


def test_a_tap_of_a_decomposed_op_is_its_result_and_no_step_on_the_way(graph: Graph) -> None:
    primitives = [name for name, op in OPS.items() if op.level == "primitive"]
    lowering = legalize(graph, only(*primitives), taps=["layers.1.mlp.norm", "layers.1.mlp"])
    taps = dict(lowering.taps)
    for tap in taps:
        last = [node for node in lowering.graph.nodes if f"{node.scope}.".startswith(f"{tap}.")][-1]
        assert taps[tap] == last.outputs[0]


def test_a_tap_that_names_nothing_is_refused(graph: Graph) -> None:
    with pytest.raises(OptionError, match=r"no scope 'layers\.9\.mlp' to tap"):
        legalize(graph, lambda node: Accept(), taps=["layers.9.mlp"])


def test_inner_scopes_are_all_the_way_down(graph: Graph) -> None:
    moe_block = next(node for node in graph.nodes if node.op == "moe_block")
    names = ("norm", "route", "experts", "shared.gate_up", "shared.swiglu", "shared.down", "combine", "residual")
    assert inner_scopes(moe_block) >= {f"layers.1.mlp.{name}" for name in names}


def test_a_claim_must_say_what_it_means(graph: Graph) -> None:
    with pytest.raises(LoweringError, match="rejected without a reason"):
        Reject("")
    with pytest.raises(LoweringError, match=r"embed: a claim is neither Accept nor Reject; found False"):
        legalize(graph, lambda node: False)  # type: ignore[arg-type,return-value]


def test_a_tap_deeper_than_a_backend_goes_is_explained(graph: Graph) -> None:
    with pytest.raises(LoweringError, match="A tap reaches as deep as the backend's own pieces"):
        legalize(graph, only(*COMPOSITES), taps=["layers.0.attention.attend.rope_q"])
