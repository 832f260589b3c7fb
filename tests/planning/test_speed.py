"""Predicted times: bytes over bandwidth, FLOPs over peaks, and what every step costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ernie_rt.contract import Device, Rate, Rates
from ernie_rt.graph.cost import graph_cost
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.planning.forms import FORMS
from ernie_rt.planning.speed import NEW, PROMPT, Predictor
from support.configs import small

DEVICE = Device("made up", "cpu", 1 << 34, 1e9, {"float32": 1e9, "int8": 4e9}, "made up")
FREE = Rates({"float32": Rate(1.0, 1.0, "float32")}, 1.0, 0.0, 0.0, "made up")
CONFIG = small(model_type="ernie4_5", hidden_size=64, intermediate_size=96, max_position_embeddings=4096)
FAST = replace(DEVICE, flops={"float32": 1e30})


def test_a_token_takes_its_bytes_over_the_bandwidth() -> None:
    graph = build_graph(CONFIG)
    cost = graph_cost(graph, {"N": 1, "C": 100, "L": 1, "P": 100})
    whole = Predictor(graph, FAST, FREE).step(1, 100)
    assert whole == pytest.approx((cost.weight_bytes + cost.cache_bytes) / 1e9)
    half = replace(FREE, weights={"float32": Rate(0.5, 1.0, "float32")}, cache=0.25)
    assert Predictor(graph, FAST, half).step(1, 100) == pytest.approx(
        (2 * cost.weight_bytes + 4 * cost.cache_bytes) / 1e9
    )


def test_a_prompt_takes_its_flops_over_the_peak_chunk_by_chunk() -> None:
    graph, wide = build_graph(CONFIG), replace(DEVICE, bandwidth=1e30)
    predictor = Predictor(graph, wide, FREE)
    speed = predictor.speed(4096, 128, prompt=300)
    assert speed is not None and speed.prompt == 300
    chunks = [(128, 128), (128, 256), (44, 300)]
    flops = [graph_cost(graph, {"N": n, "C": c, "L": 1, "P": c}).flops for n, c in chunks]
    assert speed.prefill_seconds == pytest.approx(sum(flops) / 1e9)
    assert speed.full_seconds > speed.token_seconds


def test_weights_are_read_as_they_are_held() -> None:
    """What is stored in bfloat16 and computed with in float32 is read in float32, and blocks as blocks."""
    stored = {name: Plain("bfloat16") for name in FORMS["float32"].storages(CONFIG)}
    narrow, wide = build_graph(CONFIG, "float32", stored), build_graph(CONFIG)
    assert Predictor(narrow, FAST, FREE).step(1, 64) == Predictor(wide, FAST, FREE).step(1, 64)
    blocks = build_graph(CONFIG, "float32", FORMS["int4"].storages(CONFIG))
    rates = replace(FREE, weights={**FREE.weights, "int4": Rate(1.0, 1.0, "int8"), "int8": Rate(1.0, 1.0, "int8")})
    assert Predictor(blocks, FAST, rates).step(1, 64) < 0.5 * Predictor(wide, FAST, FREE).step(1, 64)


def test_steps_and_nodes_cost_what_they_cost() -> None:
    graph = build_graph(small(num_hidden_layers=1, moe_layer_start_index=0))
    idle = replace(FAST, bandwidth=1e30)
    rates = replace(FREE, step_seconds=1.0, node_seconds=1e-3)
    # norm, qkv, attend, out, residual; norm, route, two experts, three of the shared, combine, residual
    embed, attention, mlp, head = 1, 5, 9, 4
    assert Predictor(graph, idle, rates).step(1, 8) == pytest.approx(1 + 1e-3 * (embed + attention + mlp + head))


def test_a_request_is_a_prompt_and_an_answer() -> None:
    speed = Predictor(build_graph(CONFIG), DEVICE, FREE).speed(4096, 512)
    assert speed is not None and speed.prompt == PROMPT
    assert speed.request_seconds == pytest.approx(speed.prefill_seconds + NEW * speed.token_seconds)
    assert speed.decode_tokens_per_second == pytest.approx(1 / speed.token_seconds)


def test_nothing_is_predicted_of_a_device_that_nobody_knows() -> None:
    unknown = replace(DEVICE, bandwidth=0.0), replace(DEVICE, flops={})
    assert [Predictor(build_graph(CONFIG), device, FREE).speed(64, 8) for device in unknown] == [None, None]


@pytest.mark.parametrize("bound", ["bandwidth", "flops"])
def test_decodes_taken_apart_are_what_steps_are(bound: str) -> None:
    much = 1e30
    device = replace(DEVICE, bandwidth=much) if bound == "flops" else replace(DEVICE, flops={"float32": much})
    rates = replace(FREE, cache=0.5, step_seconds=1e-9, node_seconds=1e-10)
    predictor = Predictor(build_graph(CONFIG), device, rates)
    decode = predictor.decode((1, 4, 64))
    for context in (1, 100, 5000):
        reading = (decode.weight_bytes[0] + context * decode.row_bytes) / device.bandwidth
        peaks = {products: device.flops.get(products, device.flops["float32"]) for products in decode.flops}
        computing = sum((token + context * row) / peaks[each] for each, (token, row) in decode.flops.items())
        assert max(reading, computing) + decode.seconds == pytest.approx(predictor.step(1, context))
    assert decode.weight_bytes[0] < decode.weight_bytes[1] < decode.weight_bytes[2] < 64 * decode.weight_bytes[0]
