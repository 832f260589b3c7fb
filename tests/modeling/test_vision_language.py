"""Configs of the vision-language models: Baidu's own files, and transformers' spelling of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import Ernie4_5_VLMoeConfig

from ernie_rt.errors import ConfigError
from ernie_rt.graph.cost import parameters
from ernie_rt.modeling.config import ModelConfig, parse_config, read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.modeling.vision_language import (
    PreprocessorConfig,
    VisionConfig,
    VisionLanguageConfig,
    parse_vision_language,
    read_preprocessor,
)

DATA = Path(__file__).parents[1] / "data" / "ernie45_vl"
NAMES = ("28B-A3B-Base-PT", "28B-A3B-Paddle", "28B-A3B-Thinking", "424B-A47B-Paddle")
TOWER = VisionConfig(32, 1280, 5120, 16, 3, 14, 2, 2, 1e-6)


def published(name: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((DATA / f"{name}.config.json").read_text())
    return fields | changes


def parse(fields: dict[str, Any]) -> ModelConfig:
    return parse_vision_language(fields, "config.json")


def vision(fields: dict[str, Any]) -> VisionLanguageConfig:
    found = parse(fields).vision
    assert found is not None
    return found


def text(**fields: Any) -> ModelConfig:
    return parse_config({"model_type": "ernie4_5_moe", **fields}, "a text model")


@pytest.mark.parametrize("name", NAMES[:3])
def test_28b(name: str) -> None:
    config = parse(published(name))
    assert config.text_vocab_size == 100295
    assert replace(config, vision=None) == text()  # that of the 21B, whose sizes are transformers' defaults
    assert config.vision == VisionLanguageConfig(
        tower=TOWER,
        moe_intermediate_size=512,
        mrope_section=(22, 22, 20),
        image_token_id=100295,
        video_token_id=100295,
        image_start_token_id=101304,
        image_end_token_id=101305,
        video_start_token_id=101306,
        video_end_token_id=101307,
        moe_capacity=(128, 128, 128),
    )


def test_424b_has_no_shared_experts_and_names_no_last_layer() -> None:
    fields = published("424B-A47B-Paddle")
    assert "moe_num_shared_experts" not in fields and "moe_layer_end_index" not in fields
    config = parse(fields)
    assert replace(config, vision=None) == text(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=54, num_attention_heads=64, num_key_value_heads=8,
        tie_word_embeddings=False, moe_k=8, moe_intermediate_size=3584, moe_num_shared_experts=0,
        moe_layer_start_index=3,
    )  # fmt: skip
    found = vision(fields)
    assert found.moe_intermediate_size == 1536 and found.tower == TOWER and found.moe_capacity == (64, 64, 64)


def test_what_is_absent_goes_by_the_spelling() -> None:
    flat = published("28B-A3B-Base-PT")
    del flat["moe_num_shared_experts"]
    moe = parse(flat).moe
    assert moe is not None and moe.moe_num_shared_experts == 0
    nested = Ernie4_5_VLMoeConfig().to_dict()
    del nested["text_config"]["moe_num_shared_experts"]
    moe = parse(nested).moe
    assert moe is not None and moe.moe_num_shared_experts == 2


def test_transformers_spelling_means_the_same() -> None:
    """All but the tokens: transformers' conversion gives videos a placeholder of their own, and its class no eos."""
    nested = json.loads(Ernie4_5_VLMoeConfig().to_json_string())
    nested["text_config"] |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    expected = parse(published("28B-A3B-Base-PT"))
    assert expected.vision is not None
    own = replace(expected.vision, video_token_id=103367, moe_capacity=None)
    assert parse(nested) == replace(expected, vision=own)
    layers = ["dense"] * 3 + ["sparse"] * 24 + ["dense"]
    nested["text_config"]["mlp_layer_types"] = layers
    moe = parse(nested).moe
    assert moe is not None and (moe.moe_layer_start_index, moe.moe_layer_end_index) == (3, 26)
    nested["text_config"]["rope_parameters"]["mrope_section"] = [20, 20, 24]
    assert vision(nested).mrope_section == (20, 20, 24)
    assert not parse(nested | {"tie_word_embeddings": False}).tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"moe_num_experts": [64, 32]}, "moe_num_experts: not supported; expected as many for vision as for text"),
        ({"moe_num_experts": [64, 64, 64]}, "moe_num_experts: impossible value; expected one integer or two"),
        ({"moe_num_experts": [64, "64"]}, "moe_num_experts: impossible value"),
        ({"moe_intermediate_size": [1536, -1]}, "moe_intermediate_size: impossible value"),
        (
            {"moe_layer_start_index": [1, 2]},
            "moe_layer_start_index: not supported; expected the same of the layers",
        ),
        ({"moe_layer_end_index": [20, 28]}, "moe_layer_end_index: not supported"),
        ({"moe_layer_end_index": ["x", 1]}, "moe_layer_end_index: impossible value"),
        ({"rope_scaling": {"type": "default", "mrope_section": [22, 22, 21]}}, "a sum of head_dim / 2 = 64; found 65"),
        ({"rope_scaling": {"type": "default", "mrope_section": [20, 24, 20]}}, "mrope_section: not supported"),
        ({"rope_scaling": {"type": "default", "mrope_section": [22, 22]}}, "mrope_section: not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling.type: not supported"),
        ({"rope_3d": False}, "rope_3d: not supported"),
        ({"freq_allocation": 24}, "freq_allocation: not supported; expected 20; found 24"),
        ({"spatial_conv_size": 4}, "spatial_conv_size: not supported; expected null or 2; found 4"),
        ({"temporal_conv_size": 1}, "temporal_conv_size: not supported"),
        ({"pixel_hidden_size": 1024}, "differs from the tower's width; expected hidden_size of vision_config = 1280"),
        ({"im_patch_id": 1 << 20}, "im_patch_id: impossible value"),
        ({"im_patch_id": 101304}, "vocab_size: impossible value; expected different ids below 103424"),
        ({"vision_config": [1]}, "vision_config: impossible value; expected an object"),
        ({"vision_config": {"hidden_act": "gelu"}}, "vision_config: hidden_act: not supported; expected quick_gelu"),
        ({"vision_config": {"depth": 10**9}}, "vision_config: depth: impossible value"),
        ({"vision_config": {"embed_dim": 1280, "hidden_size": 1024}}, "vision_config: embed_dim: differs from hidden_"),
        ({"vision_config": {"patch_size": 16, "spatial_patch_size": 16}}, "patch_size: not supported; expected 14"),
        ({"vision_config": {"num_heads": 17}}, "vision_config: num_heads: impossible value"),
        ({"vision_config": {"rope_parameters": {"rope_type": "axial", "rope_theta": 5}}}, "rope_theta: not supported"),
        ({"moe_capacity": ["many"]}, "moe_capacity: impossible value"),
        ({"hidden_size": "2560"}, "hidden_size: impossible value"),
        ({"num_hidden_layers": 1024, "hidden_size": 65536, "num_attention_heads": 512}, "impossibly large"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(published("28B-A3B-Base-PT", **changes))
    assert says in str(caught.value) and str(caught.value).startswith("config.json: ")


@pytest.mark.parametrize("kinds", ["sparse", ["dense"], ["sparse", "dense", "sparse"], [1], [None, "sparse", ["x"]]])
def test_layers_that_are_no_run_of_sparse_ones(kinds: Any) -> None:
    nested = {"text_config": {"mlp_layer_types": kinds}}
    if kinds == [None, "sparse", ["x"]]:
        moe = parse(nested).moe
        assert moe is not None and moe.moe_layer_start_index == 1
    else:
        with pytest.raises(ConfigError, match="mlp_layer_types"):
            parse(nested)


def test_there_is_a_text_model_inside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((DATA / f"{NAMES[2]}.config.json").read_text())
    config = read_config(tmp_path)
    assert config.sees is config.vision is not None and config.text_alone.sees is None
    graphs = build_graphs(config.text_alone)
    assert graphs == {"main": build_graph(text())} and parameters(*graphs.values()) == 21_825_437_888
    (tmp_path / "config.json").write_text(json.dumps(published(NAMES[2], rope_3d=False)))
    with pytest.raises(ConfigError, match="rope_3d: not supported"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["28B-A3B-Thinking", "28B-A3B-Paddle"])
def test_pictures_are_prepared_as_published(name: str, tmp_path: Path) -> None:
    fields = json.loads((DATA / f"{name}.preprocessor_config.json").read_text())
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(fields))
    assert fields["max_pixels"] == 6144 * 28 * 28
    assert read_preprocessor(tmp_path) == PreprocessorConfig(3136, 6177 * 28 * 28), "as in Baidu's code"
    path.write_text(json.dumps({**fields, "max_pixels": 784_000}))
    assert read_preprocessor(tmp_path) == PreprocessorConfig(3136, 784_000)
    for changes, says in (
        ({"image_mean": [0.5, 0.5, 0.5]}, "image_mean: not supported"),
        ({"max_pixels": 100}, "max_pixels: impossible value"),
        ({"patch_size": 16}, "patch_size: not supported"),
        ({"min_pixels": True}, "min_pixels: impossible value"),
    ):
        path.write_text(json.dumps(fields | changes))
        with pytest.raises(ConfigError, match=f"preprocessor_config.json: {says}"):
            read_preprocessor(tmp_path)
