"""What seeing takes: sizes to tokens, FLOPs of the tower, bytes by part, and how long until an answer begins."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from ernie_rt.contract import Device, Rate, Rates
from ernie_rt.errors import MediaError, OptionError
from ernie_rt.graph.cost import graph_cost, live_bytes
from ernie_rt.graph.graph import Graph
from ernie_rt.host import PluginHost
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.planning.picture import picture_of
from ernie_rt.planning.plan import Plan, make_plan
from ernie_rt.planning.seeing import Shown, encoding_flops
from ernie_rt.planning.speed import NEW, Predictor
from ernie_rt.vision.grid import CPU_PIXELS, MAX_PIXELS

CARD = Device("a card", "cuda", 1 << 40, 1e12, {"bfloat16": 1e14}, "made up")
FREE = Rates({"bfloat16": Rate(1.0, 1.0, "bfloat16")}, 1.0, 0.0, 0.0, "made up")
SHOWN = ("image 224x224", "image 640x480", "image 1920x1080", "image 4000x3000", "video 60x1280x720")


def shown(text: str, max_pixels: int = MAX_PIXELS) -> Shown:
    kind, size = text.split()
    return Shown.of("image" if kind == "image" else "video", size, max_pixels)


def config_of(name: str) -> ModelConfig:
    family = find(name)
    assert family is not None
    return family.config


@cache
def graphs(name: str) -> dict[str, Graph]:
    return build_graphs(config_of(name))


def shallow() -> ModelConfig:
    """Two layers of the 28B, of which the second has experts, behind a tower of one."""
    config = config_of("VL-28B-A3B")
    assert config.moe is not None and config.vision is not None
    vision = replace(config.vision, tower=replace(config.vision.tower, depth=1))
    return replace(config, num_hidden_layers=2, moe=replace(config.moe, moe_layer_end_index=1), vision=vision)


def planned(config: ModelConfig, **options: Any) -> Plan:
    device = options.pop("device", CARD)
    return make_plan("a model", config, PluginHost(), device, device.memory_bytes, [131_072], **options)


@cache
def plan(name: str) -> Plan:
    return planned(config_of(name), storage="bfloat16,int4", shown=[shown(each) for each in SHOWN])


@pytest.mark.parametrize(
    ("text", "made", "patches", "tokens", "teraflops", "megabytes"),
    [
        ("image 224x224", "224x224", 256, 64, 0.35, (3.7, 14)),
        ("image 640x480", "644x476", 1_564, 391, 2.5, (22, 87)),
        ("image 1920x1080", "1932x1092", 10_764, 2_691, 33, (154, 595)),
        ("image 4000x3000", "2520x1904", 24_480, 6_120, 131, (351, 1_354)),
        ("video 60x1280x720", "60x1288x728", 287_040, 35_880, 601, (2_058, 7_936)),
    ],
)
def test_figures_of_the_published_models(
    text: str, made: str, patches: int, tokens: int, teraflops: float, megabytes: tuple[float, float]
) -> None:
    each = shown(text)
    assert (each.made, each.patches, each.tokens) == (made, patches, tokens)
    assert encoding_flops(graphs("VL-28B-A3B")["vision"], each.grid) / 1e12 == pytest.approx(teraflops, rel=0.02)
    for name, expected in zip(("VL-28B-A3B", "VL-424B-A47B"), megabytes, strict=True):
        assert tokens * plan(name).kv_bytes["bfloat16"] / 1e6 == pytest.approx(expected, rel=0.02)


def test_prefill_of_a_picture_goes_through_its_own_experts() -> None:
    """3.6 GFLOPs a token of a picture, 6.7 a token of text with its logits; and attention."""
    main, tokens = graphs("VL-28B-A3B")["main"], 391
    cost = graph_cost(main, {"N": tokens, "C": tokens, "P": tokens, "L": 0, "F": 1 + tokens})
    assert cost.flops / 1e12 == pytest.approx(1.44, rel=0.01)
    one, text = (graph_cost(main, {"N": 1, "C": 1, "P": 1, "L": 1 - seen, "F": 1 + seen}) for seen in (1, 0))
    assert (one.flops / 1e9, text.flops / 1e9) == (pytest.approx(3.63, rel=0.01), pytest.approx(6.71, rel=0.01))
    # In each of 27 layers a token reads six experts of its pool, and none of the other.
    assert text.weight_bytes - one.weight_bytes == pytest.approx(2 * 27 * 6 * 3 * 2560 * (1536 - 512), rel=0.001)


@pytest.mark.parametrize(
    ("name", "shares", "active", "gigabytes"),
    [
        ("VL-28B-A3B", (21.825e9, 6.799e9, 630_433_280, 144_225_280), 2.078e9, {"bfloat16": 58.87, "int4": 17.8}),
        ("VL-424B-A47B", (299.5e9, 123.2e9, 630_433_280, 173_072_384), 27.39e9, {"bfloat16": 847.2, "int4": 240.4}),
    ],
)
def test_parameters_and_bytes_by_share(
    name: str, shares: tuple[float, ...], active: float, gigabytes: dict[str, float]
) -> None:
    made = plan(name)
    sight = made.sight
    assert sight is not None and list(sight.parameters) == ["text", "vision experts", "tower", "resampler"]
    assert tuple(sight.parameters.values()) == pytest.approx(shares, rel=0.001)
    assert (sight.parameters["tower"], sight.parameters["resampler"]) == shares[2:]
    assert sum(sight.parameters.values()) == made.parameters
    assert sight.active_parameters == pytest.approx(active, rel=0.001)
    for form, expected in gigabytes.items():
        assert sum(made.sizes[form].values()) / 1e9 == pytest.approx(expected, rel=0.005)
        assert made.sizes[form]["tower"] == 2 * sight.parameters["tower"]  # in whatever form the others are
        assert made.sizes[form]["resampler"] == 2 * sight.parameters["resampler"]


def test_the_largest_picture_and_the_request_as_json() -> None:
    made = plan("VL-28B-A3B")
    told = json.loads(json.dumps(made.to_json()))
    vision = told["vision"]
    assert (vision["max_pixels"], vision["largest_tokens"]) == (MAX_PIXELS, 6_177)
    assert vision["largest_kv_bytes"] == 6_177 * 57_344 and vision["largest_feature_bytes"] == 6_177 * 2560 * 2
    patches = {"N": 24_708, "S": 24_708, "M": 6_177, "F": 6_177}
    assert vision["largest_activation_bytes"] == live_bytes(graphs("VL-28B-A3B")["vision"], patches)
    assert [each["tokens"] for each in vision["shown"]] == [64, 391, 2_691, 6_120, 35_880]
    for candidate in told["candidates"]:
        assert 0 < candidate["vision_seconds"] < candidate["first_token_seconds"]


def test_on_a_cpu_pictures_are_made_smaller() -> None:
    cpu = replace(CARD, kind="cpu", flops={"float32": 1e12})
    for pixels, tokens in ((None, 1_024), (MAX_PIXELS, 6_177)):
        sight = planned(shallow(), storage="int4", device=cpu, max_pixels=pixels).sight
        assert sight is not None and sight.largest_tokens == tokens
    assert shown("image 1920x1080", CPU_PIXELS).tokens == 1_008


def test_without_pictures_it_is_the_text_model() -> None:
    whole, text = config_of("VL-28B-A3B"), config_of("21B-A3B")
    made = [planned(config, storage="bfloat16,int4") for config in (whole.text_alone, text)]
    assert made[0].sight is None and made[0].parameters == made[1].parameters
    assert made[0].to_json()["vision"] is None
    assert made[0].sizes == made[1].sizes and made[0].candidates == made[1].candidates
    (choice,) = made[0].choices
    assert choice is not None and "ernie-rt run 'a model' --text-only " in made[0].command(choice)
    with pytest.raises(OptionError, match=r"the model takes in text alone, no pictures.*; found 1 of them.*VL-28B-A3B"):
        planned(whole.text_alone, shown=[shown("image 28x28")])


def test_pieces_are_whole_pictures_and_pairs_of_frames() -> None:
    video = shown("video 7x320x240")
    assert video.grid == (8, 30, 40) and video.made == "8x560x420"
    for most, frames in ((24_708, [8]), (4_800, [4, 4]), (2_400, [2] * 4), (7_200, [6, 2]), (1, [2] * 4)):
        assert [grid[0] for grid in video.pieces(most)] == frames
    assert list(shown("image 640x480").pieces(1)) == [(1, 34, 46)]
    assert shown("video 1x320x240").grid[0] == 2


@pytest.mark.parametrize("size", ["", "640", "640x", "0x480", "640x480x2", "1e3x5", "-1x5", "1234567x5"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(OptionError, match="--image is not a size; expected WIDTHxHEIGHT, such as 1920x1080; found "):
        Shown.of("image", size)
    with pytest.raises(OptionError, match="--video is not a size; expected FRAMESxWIDTHxHEIGHT"):
        Shown.of("video", "640x480")
    with pytest.raises(MediaError, match="too long and narrow"):
        Shown.of("image", "9000x10")


def test_the_first_token_waits_for_the_tower_and_for_the_prompt() -> None:
    main, vision = graphs("VL-28B-A3B").values()
    fast = replace(CARD, bandwidth=1e30)
    each = shown("image 640x480")
    speed = Predictor(main, fast, FREE, vision).speed(4096, 512, 100, [each])
    assert speed is not None and speed.prompt == 491
    assert speed.vision_seconds == pytest.approx(encoding_flops(vision, each.grid) / 1e14)
    cost = graph_cost(main, {"N": 491, "C": 491, "P": 491, "L": 1, "F": 1 + 391})
    assert speed.prefill_seconds == pytest.approx(cost.flops / 1e14)
    assert speed.request_seconds == pytest.approx(speed.first_token_seconds + NEW * speed.token_seconds)
    chunks = Predictor(main, fast, FREE, vision).speed(4096, 256, 100, [each])
    steps = [(256, 256, 256), (235, 491, 135)]  # new tokens, context, of which a picture's
    flops = [graph_cost(main, {"N": n, "C": c, "P": c, "L": 1, "F": 1 + seen}).flops for n, c, seen in steps]
    assert chunks is not None and chunks.prefill_seconds == pytest.approx(sum(flops) / 1e14)
    assert Predictor(main, fast, FREE, vision).speed(300, 512, 100, [each]) is None  # no room for it


def test_each_step_of_the_tower_reads_its_weights_once() -> None:
    main, vision = graphs("VL-28B-A3B").values()
    slow = replace(CARD, flops={"bfloat16": 1e30})
    video = shown("video 7x320x240")
    nbytes = sum(weight.nbytes() for weight in vision.weights if weight.storage.stored)
    for most, steps in ((24_708, 1), (2_400, 4)):
        speed = Predictor(main, slow, FREE, vision).speed(4096, 512, 1, [video], most)
        assert speed is not None and speed.vision_seconds == pytest.approx(steps * nbytes / 1e12, rel=1e-3)


def test_a_page_says_what_becomes_of_pictures() -> None:
    made = planned(shallow(), storage="bfloat16", shown=[shown("image 1920x1080")])
    drawn = picture_of(made, PluginHost(), [])
    for text in ("Pictures and videos", "<td>1920x1080</td>", "<td>2,691</td>", "vision experts 252 M", "on a card:"):
        assert text in drawn.seen
    assert made.sight is not None
    bar = next(bar for bar in drawn.bars if bar.name == "bfloat16, eager")
    sizes = made.sight.parameters
    assert bar.weights["tower and resampler"] == 2 * (sizes["tower"] + sizes["resampler"])
    assert bar.weights["vision experts"] == 2 * sizes["vision experts"] == 2 * 64 * 3 * 2560 * 512
