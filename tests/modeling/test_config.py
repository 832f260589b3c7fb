"""config.json: what it means to transformers it means here, and nothing hostile gets past it."""

from __future__ import annotations

import dataclasses
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM, Ernie4_5Config

from ernie_rt.errors import ConfigError, ErnieRtError
from ernie_rt.modeling.config import MAX_PARAMETERS, ModelConfig, read_config
from ernie_rt.modeling.config import parse_config as parse_config_at
from ernie_rt.modeling.spellings import ALIASES, DEFAULTS, MOE_NEUTRAL, NEUTRAL

DENSE = {"architectures": ["Ernie4_5_ForCausalLM"], **DEFAULTS["ernie4_5"], "model_type": "ernie4_5"}
MOE = {"architectures": ["Ernie4_5_MoeForCausalLM"], **DEFAULTS["ernie4_5_moe"], "model_type": "ernie4_5_moe"}

# As published: the 300B counts its layers by hand, names no end, and keeps traces of its training.
MOE_300B = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_ernie4_5_moe.Ernie4_5_MoeForCausalLM"},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "max_position_embeddings": 131072,
    "model_type": "ernie4_5_moe",
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 54,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "use_cache": False,
    "vocab_size": 103424,
    "rope_theta": 500000,
    "use_rmsnorm": True,
    "use_bias": False,
    "moe_num_experts": 64,
    "num_nextn_predict_layers": 1,
    "moe_layer_start_index": 3,
    "moe_intermediate_size": 3584,
    "moe_num_shared_experts": 0,
    "moe_capacity": [64, 64, 64],
    "moe_gate": "topk",
    "moe_k": 8,
    "moe_layer_interval": 1,
    "moe_use_aux_free": True,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def parse_config(fields: dict[str, Any]) -> ModelConfig:
    return parse_config_at(fields, "config.json")


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(fields)
    assert caught.value.where is not None and caught.value.where.startswith("config.json: ")
    return str(caught.value)


def assert_means_the_same(ours: ModelConfig, theirs: Any) -> None:
    """`theirs` is a config object of transformers."""
    moe = ours.moe
    names = [field.name for field in dataclasses.fields(ours)]
    for name in set(names) - {
        "moe",
        "vision",
        "text_only",
        "dtype",
        "compression_ratio",
        "num_nextn_predict_layers",
        "rope_theta",
        "head_dim",
    }:
        expected = getattr(theirs, name)
        if name == "eos_token_id":
            expected = () if expected is None else (expected,) if isinstance(expected, int) else tuple(expected)
        assert getattr(ours, name) == expected, name
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.head_dim == getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert (moe is not None) == (ours.model_type == "ernie4_5_moe")
    if moe is not None:
        assert moe.moe_use_aux_free  # transformers' routers have the bias, whatever a config says
        for name in {field.name for field in dataclasses.fields(moe)} - {"moe_use_aux_free"}:
            assert getattr(moe, name) == getattr(theirs, name), name


@pytest.mark.parametrize(("fields", "theirs"), [(DENSE, Ernie4_5Config), (MOE, Ernie4_5_MoeConfig)])
def test_an_absent_field_means_what_it_means_to_transformers(fields: dict[str, Any], theirs: Any) -> None:
    assert_means_the_same(parse_config({"model_type": fields["model_type"]}), theirs())
    for name in fields.keys() - {"model_type"}:
        some = {key: value for key, value in fields.items() if key != name}
        assert_means_the_same(parse_config(some), theirs(**some))


@pytest.mark.parametrize(
    "written",
    [
        Ernie4_5Config(head_dim=64, num_hidden_layers=3, eos_token_id=[2, 5], use_bias=True, dtype="float16"),
        Ernie4_5Config(
            head_dim=None, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, pad_token_id=None
        ),
        Ernie4_5_MoeConfig(
            num_hidden_layers=9, moe_layer_interval=2, moe_layer_start_index=3, moe_num_shared_experts=0
        ),
        Ernie4_5_MoeConfig(
            moe_layer_end_index=20, tie_word_embeddings=False, num_key_value_heads=20, moe_norm_min=1e-6
        ),
    ],
)
def test_what_transformers_writes_is_read_back(written: Any, tmp_path: Path) -> None:
    written.save_pretrained(tmp_path)
    ours = read_config(tmp_path)
    assert_means_the_same(ours, written)
    assert ours.dtype == ("float16" if written.dtype == torch.float16 else "bfloat16")


def test_the_published_300b() -> None:
    config = parse_config(MOE_300B)
    moe = config.moe
    assert moe is not None
    assert (moe.moe_num_experts, moe.moe_k, moe.moe_intermediate_size) == (64, 8, 3584)
    assert (moe.moe_layer_start_index, moe.moe_layer_end_index) == (3, 53)
    assert moe.shared_intermediate_size == 0 and moe.moe_use_aux_free
    assert [config.is_moe_layer(i) for i in (0, 2, 3, 53, 54)] == [False, False, True, True, False]
    assert (config.head_dim, config.tie_word_embeddings, config.num_nextn_predict_layers) == (128, False, 1)
    assert config.rope_theta == 500000.0 and isinstance(config.rope_theta, float)


@pytest.mark.parametrize(("interval", "start", "end"), [(1, 1, -1), (2, 0, -1), (3, 2, 6), (2, 4, 7)])
def test_the_layers_with_experts_are_those_of_transformers(interval: int, start: int, end: int) -> None:
    chosen = {"moe_layer_interval": interval, "moe_layer_start_index": start, "moe_layer_end_index": end}
    small = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 9,
        "head_dim": 4,
    }
    with torch.device("meta"):
        model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(**chosen, **small))
    config = parse_config({"model_type": "ernie4_5_moe", **chosen, **small})
    theirs = [hasattr(layer.mlp, "experts") for layer in model.model.layers]
    assert [config.is_moe_layer(i) for i in range(9)] == theirs and any(theirs)


def test_lists_by_modality_give_the_text_its_share() -> None:
    lists = {
        "moe_num_experts": [64, 32],
        "moe_intermediate_size": [1536, 512],
        "moe_layer_start_index": [2, 1],
        "moe_layer_end_index": [29, 28],
    }
    moe = parse_config({**MOE, **lists}).moe
    assert moe is not None
    assert (moe.moe_num_experts, moe.moe_intermediate_size) == (64, 1536)
    assert (moe.moe_layer_start_index, moe.moe_layer_end_index) == (1, 27)
    assert "moe_num_experts" in refusal({**MOE, "moe_num_experts": []})
    assert "moe_num_experts" in refusal({**MOE, "moe_num_experts": [64, "64"]})


@pytest.mark.parametrize(
    ("fields", "theta"),
    [
        ({"rope_theta": 10000}, 10000.0),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, 10000.0),
        ({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "rope_theta": 5.0}, 10000.0),
        ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 10000.0}, 10000.0),
        ({"rope_scaling": None, "rope_theta": 10000.0}, 10000.0),
        ({"rope_scaling": {"type": "default"}, "rope_theta": 10000.0}, 10000.0),
        ({"rope_scaling": {"rope_theta": 7.0}, "rope_parameters": {"rope_theta": 8.0}}, 7.0),
        ({"rope_scaling": {}, "rope_parameters": {"rope_theta": 8.0}}, 8.0),
        ({"rope_scaling": None, "rope_parameters": {"rope_theta": 8.0}}, 8.0),
        ({"rope_scaling": {}, "rope_theta": 9.0}, 9.0),
        ({}, 500000.0),
    ],
)
def test_rope_theta_is_found_where_transformers_finds_it(fields: dict[str, Any], theta: float) -> None:
    assert parse_config({"model_type": "ernie4_5", **fields}).rope_theta == theta
    copy = json.loads(json.dumps(fields))  # transformers changes what it is given
    assert Ernie4_5Config(**copy).rope_parameters["rope_theta"] == theta


def test_other_spellings() -> None:
    renamed = {key: value for key, value in MOE.items() if key not in ALIASES.values()}
    moe = parse_config({**renamed, "num_experts": 16, "num_experts_per_tok": 4}).moe
    assert moe is not None and (moe.moe_num_experts, moe.moe_k) == (16, 4)
    assert parse_config({**MOE, "num_experts": 64}).moe is not None
    assert parse_config({**MOE, "num_experts": None}) == parse_config(MOE)
    assert "num_experts_per_tok: differs from moe_k" in refusal({**MOE, "num_experts_per_tok": 4})
    assert "config.json: num_experts: impossible value" in refusal({**renamed, "num_experts": "64"})


NEUTRAL_SPELLINGS: list[dict[str, Any]] = [
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 1.0}},
    {"rope_parameters": {"rope_type": "default", "factor": 1.0, "attention_factor": None, "mscale": None}},
    {"rope_parameters": {"rope_type": "default", "original_max_position_embeddings": 131072}},
    {"rope_scaling": None},
    {"rope_scaling": {}, "rope_theta": 500000},
    {"rope_scaling": {"type": "default"}},
    {"rope_scaling": {"type": "linear", "factor": 1.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 1}},
    {"rope_scaling": {"rope_type": None, "type": "default"}},
    {"rope_theta": None},
    {"partial_rotary_factor": 1},
    {"torch_dtype": "torch.bfloat16"},
    {"dtype": "torch.bfloat16", "torch_dtype": "float32"},
    {"dtype": None, "torch_dtype": "bfloat16"},
    {"torch_dtype": "paddle.bfloat16"},
    {"torch_dtype": "auto"},
    {"torch_dtype": None},
    {"sliding_window": 4096, "use_sliding_window": False},
    {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 18},
    {"sliding_window": 131072},
    {"sliding_window": 0},
    {"sliding_window": -1, "use_sliding_window": True},
    {"torch_dtype": "bf16"},
    {"architectures": "Ernie4_5ForCausalLM"},
    {"layer_types": ["full_attention"] * 18},
    {"architectures": ["FSDPErnie4_5ForCausalLM"]},
    {"architectures": ["Ernie4_5_ForCausalLMPipe"]},
    {"architectures": ["PeftModelForCausalLM"]},
    {"architectures": ["OptimizedModule", "Ernie4_5ForCausalLM"]},
    {"architectures": []},
    {"architectures": None},
    {"hidden_size": 1024.0, "num_hidden_layers": 18.0, "eos_token_id": [2.0]},
    {"hidden_act": "swish"},
    {"hidden_act": None},
    {"use_bias": None, "tie_word_embeddings": None, "rms_norm_eps": None, "max_position_embeddings": None},
    {"use_rmsnorm": True, "use_cache": True, "attention_dropout": 0.1, "hidden_dropout_prob": 0.0, "fuse_rope": True},
    {"quantization_config": {}, "quantization": None, "is_quantized": False},
    {"num_nextn_predict_layers": None, "compression_ratio": None},
]


@pytest.mark.parametrize("fields", NEUTRAL_SPELLINGS, ids=str)
def test_spellings_that_mean_nothing_else(fields: dict[str, Any]) -> None:
    assert parse_config({**DENSE, **fields}) == parse_config(DENSE)


@pytest.mark.parametrize(
    "fields",
    [
        {"moe_layer_start_index": None, "moe_layer_end_index": None, "moe_layer_interval": None, "moe_norm_min": None},
        {"moe_k": 6.0, "moe_num_experts": [64], "moe_capacity": [64, 64, 64], "moe_use_aux_free": None},
        {"moe_gate": None, "moe_norm_gate_logits": True, "norm_topk_prob": True, "routed_scaling_factor": 1},
        {"architectures": ["FSDPErnie4_5_MoeForCausalLM"]},
    ],
    ids=str,
)
def test_spellings_of_experts_that_mean_nothing_else(fields: dict[str, Any]) -> None:
    assert parse_config({**MOE, **fields}) == parse_config(MOE)


def test_tokens_that_are_none() -> None:
    for none in (None, -1, -1.0):
        config = parse_config({**DENSE, "bos_token_id": none, "eos_token_id": none, "pad_token_id": none})
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, (), None)
    assert parse_config({**DENSE, "eos_token_id": [2, -1, 5]}).eos_token_id == (2, 5)


def test_dtype_comes_from_either_field() -> None:
    assert parse_config({"model_type": "ernie4_5"}).dtype == "bfloat16"
    assert parse_config({"model_type": "ernie4_5", "torch_dtype": "float16"}).dtype == "float16"
    assert parse_config({"model_type": "ernie4_5", "torch_dtype": "float16", "dtype": "float32"}).dtype == "float32"
    assert "torch_dtype: not supported" in refusal({"model_type": "ernie4_5", "torch_dtype": "float8_e4m3fn"})


def test_the_model_type_may_be_told_from_the_class() -> None:
    assert parse_config({"architectures": ["Ernie4_5_ForCausalLM"]}).model_type == "ernie4_5"
    assert parse_config({"architectures": ["Ernie4_5ForCausalLM"]}).model_type == "ernie4_5"
    assert parse_config({"architectures": ["Ernie4_5_MoeForCausalLM"]}).model_type == "ernie4_5_moe"


def test_experts_of_a_dense_model() -> None:
    for none in (0, None, [0, 0]):
        assert parse_config({**DENSE, "moe_num_experts": none}).moe is None
    assert "model_type ernie4_5_moe" in refusal({**DENSE, "moe_num_experts": 64})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model_type": "qwen2_5_vl"}, "model_type: not a model that ernie-rt runs"),
        ({"model_type": "llama"}, "model_type: not a model that ernie-rt runs; expected ernie4_5, ernie4_5_moe"),
        ({}, "model_type"),
        ({"model_type": ["ernie4_5"]}, "model_type"),
        ({**DENSE, "architectures": ["Ernie4_5_MoeForCausalLM"]}, "architectures: not a class of model_type ernie4_5"),
        ({**DENSE, "architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"architectures": ["LlamaForCausalLM"]}, "model_type"),
        ({**DENSE, "architectures": "LlamaForCausalLM"}, "architectures"),
        ({**DENSE, "architectures": {"Ernie4_5ForCausalLM": 1}}, "architectures"),
        ({**DENSE, "torch_dtype": "torch.int8"}, "torch_dtype: not supported"),
        ({**DENSE, "torch_dtype": ["bfloat16"]}, "torch_dtype: not supported"),
        (
            {**DENSE, "hidden_size": True},
            "hidden_size: impossible value; expected an integer from 1 to 65536; found True",
        ),
        ({**DENSE, "hidden_size": 1024.5}, "hidden_size"),
        ({**DENSE, "hidden_size": float("inf")}, "hidden_size"),
        ({**DENSE, "rope_parameters": {}, "eos_token_id": [2.5]}, "eos_token_id"),
        ({**DENSE, "hidden_size": "1024"}, "hidden_size"),
        ({**DENSE, "hidden_size": 2**63}, "hidden_size"),
        ({**DENSE, "hidden_size": -1}, "found -1"),
        ({**DENSE, "hidden_size": 10**5000}, "found an integer of 16610 bits"),
        ({**DENSE, "num_hidden_layers": 10**9}, "expected an integer from 1 to 1024"),
        ({**DENSE, "head_dim": 0}, "head_dim"),
        ({**DENSE, "head_dim": 63}, "head_dim: impossible value; expected an even number"),
        ({**DENSE, "head_dim": None, "hidden_size": 1000}, "hidden_size / num_attention_heads"),
        ({**DENSE, "num_attention_heads": 15}, "num_attention_heads, num_key_value_heads"),
        ({**DENSE, "rope_theta": 0}, "rope_theta"),
        ({**DENSE, "rope_theta": True}, "rope_theta"),
        ({**DENSE, "use_rmsnorm": 1}, "use_rmsnorm: not supported; expected null or true"),
        ({**DENSE, "rope_theta": float("nan")}, "rope_theta"),
        ({**DENSE, "rope_theta": 1e308}, "rope_theta"),
        ({**DENSE, "rms_norm_eps": 0}, "rms_norm_eps"),
        ({**DENSE, "eos_token_id": 10**12}, "eos_token_id"),
        ({**DENSE, "eos_token_id": [2, 103424]}, "eos_token_id"),
        ({**DENSE, "vocab_size": 2}, "vocab_size"),
        ({**DENSE, "max_position_embeddings": (1 << 24) + 1}, "max_position_embeddings"),
        ({**DENSE, "hidden_act": "__import__('os').system('true')"}, "hidden_act: not supported; expected silu"),
        (
            {**DENSE, "sliding_window": 4096},
            "sliding_window: not supported; expected null, or 131072 or more; found 4096",
        ),
        ({**DENSE, "quantization_config": {"quant_method": "fp8"}}, "quantization_config: not supported"),
        ({**DENSE, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type: not supported"),
        ({**DENSE, "rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type: not supported"),
        ({**DENSE, "rope_parameters": {"rope_theta": 1e4, "factor": 2.0}}, "rope_parameters: factor: not supported"),
        ({**DENSE, "rope_parameters": {"rope_theta": 1e4, "mscale": 2.0}}, "found 'mscale'"),
        ({**DENSE, "rope_scaling": {"mrope_section": [24, 24, 16]}}, "found 'mrope_section'"),
        ({**DENSE, "rope_scaling": {"type": "linear"}}, "rope_scaling.type: not supported"),
        ({**DENSE, "rope_scaling": {"type": "linear", "factor": True}}, "rope_scaling.type: not supported"),
        ({**DENSE, "rope_scaling": {"type": "yarn", "factor": 1.0}}, "rope_scaling.type: not supported"),
        ({**DENSE, "rope_scaling": {"type": ["default"]}}, "rope_scaling.type: not supported"),
        ({**DENSE, "rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor: not supported"),
        ({**DENSE, "sliding_window": 4096, "use_sliding_window": True}, "sliding_window: not supported"),
        ({**DENSE, "use_sliding_window": "no"}, "use_sliding_window: impossible value"),
        ({**DENSE, "layer_types": ["full_attention", "sliding_attention"]}, "layer_types: not supported"),
        ({**DENSE, "quantization_config": {"quant_method": "awq", "bits": 4}}, "found 'awq'. Take the model that they"),
        ({**DENSE, "quantization_config": {"quantization": "wint4"}}, "found 'wint4'"),
        ({**DENSE, "quantization": {"group_size": 64, "bits": 4}}, "quantization: not supported, weights that another"),
        ({**DENSE, "quantization": {"group_size": 64, "bits": 4}}, "found 'MLX'"),
        ({**DENSE, "architectures": ["Ernie4_5ForSequenceClassification"]}, "architectures: not a class of"),
        ({**DENSE, "bos_token_id": -2}, "bos_token_id: impossible value"),
        ({**MOE, "norm_topk_prob": False}, "norm_topk_prob: not supported"),
        ({**DENSE, "rope_parameters": {"rope_theta": "1e4"}}, "rope_parameters: rope_theta: impossible value"),
        ({**DENSE, "rope_parameters": [1]}, "rope_parameters: impossible value; expected an object or null"),
        (
            {**DENSE, "hidden_size": 1 << 16, "intermediate_size": 1 << 20, "num_hidden_layers": 1024},
            "impossibly large",
        ),
        ({**MOE, "moe_k": 65}, "moe_k (num_experts_per_tok), moe_num_experts (num_experts)"),
        ({**MOE, "moe_num_experts": 0}, "moe_num_experts"),
        ({**MOE, "moe_gate_act": "sigmoid"}, "moe_gate_act: not supported; expected null or softmax; found 'sigmoid'"),
        ({**MOE, "moe_gate": "top2"}, "moe_gate: not supported"),
        ({**MOE, "moe_norm_gate_logits": False}, "moe_norm_gate_logits: not supported"),
        ({**MOE, "moe_layer_start_index": 28}, "moe_layer_start_index"),
        ({**MOE, "moe_layer_start_index": 9, "moe_layer_end_index": 8}, "no layer has experts"),
        ({**MOE, "moe_layer_interval": 29}, "moe_layer_interval"),
        ({**MOE, "moe_layer_interval": 0}, "moe_layer_interval"),
        ({**MOE, "moe_num_shared_experts": None}, "moe_num_shared_experts"),
        ({**MOE, "moe_norm_min": 0.0}, "moe_norm_min"),
        ({**MOE, "moe_num_experts": 1024, "num_hidden_layers": 1024}, "num_hidden_layers, moe_num_experts"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], says: str) -> None:
    assert says in refusal(fields)


def test_code_fields_are_never_followed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "modeling_canary.py").write_text(f"open({str(canary)!r}, 'w')")
    code = {
        "auto_map": {"AutoConfig": "modeling_canary.Config", "AutoModelForCausalLM": "modeling_canary.Model"},
        "_attn_implementation_internal": "modeling_canary.py",
        "custom_pipelines": {"text-generation": {"impl": "modeling_canary.Pipeline"}},
    }
    (tmp_path / "config.json").write_text(json.dumps({**DENSE, **code}))
    assert read_config(tmp_path) == parse_config(DENSE)
    assert not canary.exists() and "modeling_canary" not in sys.modules


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '{"model_type": NaN}', '{"a": 1, "a": 2}', "\ufeff{}", "null"]
)
def test_files_that_are_no_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ErnieRtError, match=r"config\.json"):
        read_config(tmp_path)


READ = sorted(
    {*DENSE, *MOE, *NEUTRAL, *MOE_NEUTRAL, *ALIASES}
    | {"dtype", "torch_dtype", "rope_scaling", "rope_parameters", "compression_ratio"}
    | {"head_dim", "num_nextn_predict_layers", "moe_use_aux_free"}
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63, 2**64, 10**4000]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["silu", "x" * 10**5, "__import__('os')", "../../etc/passwd", "\0", "ernie4_5_vl_moe"]),
)
keys = st.sampled_from(["rope_theta", "rope_type", "type", "factor", "x" * 10**5]) | st.text(max_size=5)
hostile = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=st.sampled_from([DENSE, MOE, MOE_300B]), name=st.sampled_from(READ), value=hostile)
@example(base=MOE, name="num_hidden_layers", value=1)
@example(base=MOE, name="num_attention_heads", value=3)
@example(base=MOE, name="moe_intermediate_size", value=1 << 16)
@example(base=DENSE, name="architectures", value=[""])
@example(base=DENSE, name="vocab_size", value=1)
@example(base=DENSE, name="eos_token_id", value=[2] * 10**6)
def test_one_hostile_field_is_named_or_harmless(base: dict[str, Any], name: str, value: Any) -> None:
    fields = {key: kept for key, kept in base.items() if key != ALIASES.get(name)}
    fields[name] = value
    tracemalloc.start()
    try:
        config = parse_config(fields)
    except ConfigError as error:
        message = str(error)
        assert name in message and len(message) < 1000
    else:
        assert config.num_hidden_layers * config.hidden_size * config.intermediate_size <= MAX_PARAMETERS
        assert config.num_attention_heads % config.num_key_value_heads == 0 == config.head_dim % 2
        assert all(0 <= id < config.vocab_size for id in config.eos_token_id)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000
