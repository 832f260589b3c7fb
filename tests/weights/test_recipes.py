from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from ernie_rt.errors import CheckpointError
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.modeling.families import FAMILIES
from ernie_rt.modeling.graphs import build_graphs, weights_of
from ernie_rt.weights.expressions import (
    Concat,
    Expression,
    Interleaved,
    Item,
    Rows,
    Stack,
    Stored,
    Transposed,
    at,
    shape_of,
    stored_in,
)
from ernie_rt.weights.names import FOR_PICTURES
from ernie_rt.weights.recipes import Dialect, Recipe, dialect_of, recipe, tower_in
from ernie_rt.weights.safetensors import StoredTensor
from support import sighted

SMALL: dict[str, Any] = {
    "model_type": "ernie4_5_moe",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_intermediate_size": 8,
}


def config(**changes: Any) -> ModelConfig:
    return parse_config(SMALL | changes, "test")


def stored(recipe: Recipe, dtype: str = "BF16") -> dict[str, StoredTensor]:
    """A checkpoint's tensors, as the recipe wants them."""
    wanted = {leaf.name: leaf.shape for weight in recipe.weights.values() for leaf in stored_in(weight)}
    return {name: StoredTensor(name, dtype, shape, 0, 0) for name, shape in wanted.items()}


CONFIGS = {
    "dense": parse_config({k: v for k, v in SMALL.items() if "moe" not in k} | {"model_type": "ernie4_5"}, "test"),
    "dense bias": parse_config(
        {k: v for k, v in SMALL.items() if "moe" not in k} | {"model_type": "ernie4_5", "use_bias": True}, "test"
    ),
    "moe": config(),
    "moe bias": config(use_bias=True, tie_word_embeddings=False),
    "no shared, late start": config(moe_num_shared_experts=0, moe_layer_start_index=2, use_bias=True),
    "interval": config(moe_layer_interval=2, moe_layer_end_index=1),
    "no correction": config(moe_use_aux_free=False),
    "sees": sighted.config(),
    "sees, text alone": sighted.config().text_alone,
}


@pytest.mark.parametrize("dialect", get_args(Dialect))
@pytest.mark.parametrize("name", CONFIGS)
def test_a_recipe_makes_exactly_the_weights_of_the_graph(name: str, dialect: Dialect) -> None:
    weights = weights_of(build_graphs(CONFIGS[name])).values()
    wanted = {weight.name: weight.type.dims for weight in weights if isinstance(weight.storage, Plain)}
    made = recipe(CONFIGS[name], dialect)
    assert {weight: shape_of(expression) for weight, expression in made.weights.items()} == wanted
    assert made.check(stored(made), "x") == []


def test_the_published_models_have_the_published_shapes() -> None:
    """Per-expert tensors, the fp32 gate, dense leading layers, one shared MLP."""
    by_name = {family.name: family for family in FAMILIES}
    pt = stored(recipe(by_name["21B-A3B"].config, "pt"))
    assert pt["model.layers.0.mlp.gate_proj.weight"].shape == (12288, 2560)
    assert pt["model.layers.27.mlp.experts.63.down_proj.weight"].shape == (2560, 1536)
    assert pt["model.layers.1.mlp.shared_experts.up_proj.weight"].shape == (3072, 2560)
    assert pt["model.layers.1.mlp.gate.weight"].shape == (64, 2560)
    assert pt["model.layers.1.mlp.moe_statics.e_score_correction_bias"].shape == (1, 64)
    assert "lm_head.weight" not in pt
    paddle = stored(recipe(by_name["300B-A47B"].config, "paddle"))
    assert paddle["ernie.layers.2.mlp.up_gate_proj.weight"].shape == (8192, 57344)
    assert paddle["ernie.layers.3.mlp.experts.0.up_gate_proj.weight"].shape == (8192, 7168)
    assert paddle["ernie.layers.3.self_attn.qkv_proj.weight"].shape == (8192, 80 * 128)
    assert paddle["ernie.layers.3.mlp.gate.weight"].shape == (8192, 64)
    assert paddle["lm_head.weight"].shape == (8192, 103424)
    assert not any("shared_experts" in name for name in paddle)


@pytest.mark.parametrize("prefix", ["", "model.", "ernie."])
def test_the_tower_lies_under_any_of_its_prefixes(prefix: str) -> None:
    tower = tower_in([f"{prefix}vision_model.ln.bias"])
    assert tower == f"{prefix}vision_model."
    made = stored(recipe(sighted.config(), "pt", tower=tower))
    assert made[f"{tower}patch_embed.proj.weight"].shape == (32, 588)
    assert made["model.layers.1.mlp.gate.weight_1"].shape == (32, 6)
    assert made["model.layers.1.mlp.experts.11.down_proj.weight"].shape == (32, 8)
    assert made["model.layers.1.mlp.moe_statics.e_score_correction_bias"].shape == (2, 6)
    text = recipe(sighted.config().text_alone, "pt")
    unused = dict(text.check({**stored(text), **made}, "x"))
    assert f"{tower}ln.bias" in unused and "model.layers.1.mlp.gate.weight_1" in unused
    assert {*unused.values()} == {FOR_PICTURES}
    assert tower_in(["model.layers.1.mlp.vision_moe.gate.weight"]) is None


def test_unused_tensors_have_a_reason() -> None:
    tied = recipe(config(), "pt")
    extra = ("model.mtp_block.0.mlp.up_proj.weight", "model.mtp_emb_norm.0.weight", "lm_head.weight")
    tensors = stored(tied) | {name: StoredTensor(name, "I8", (1,), 0, 0) for name in extra}
    unused = dict(tied.check(tensors, "x"))
    assert set(unused) == set(extra)
    assert unused["lm_head.weight"] == "the same as the embedding, to which the model ties its head"
    assert "speculative" in unused["model.mtp_emb_norm.0.weight"]
    tables = {f"model.{name}rotary_emb.inv_freq" for name in ("", "layers.1.self_attn.")}
    tensors |= {name: StoredTensor(name, "F32", (4,), 0, 0) for name in tables}
    assert {name for name, reason in tied.check(tensors, "x") if "computed" in reason} == tables
    with pytest.raises(CheckpointError, match=r"left over, 1: 'lm_head.bias'"):
        tied.check(tensors | {"lm_head.bias": StoredTensor("lm_head.bias", "F32", (40,), 0, 0)}, "x")

    paddle = recipe(config(), "paddle")
    leftovers = ("ernie.layers.1.mlp.gate.weight_1", "ernie.resampler_model.mlp.weight", "ernie.mtp_block.0.x")
    tensors = stored(paddle) | {name: StoredTensor(name, "F32", (1,), 0, 0) for name in leftovers}
    assert {name for name, _ in paddle.check(tensors, "x")} == set(leftovers)
    stray = "model.resampler_model.mlp.weight"
    with pytest.raises(CheckpointError, match=f"left over, 1: '{stray}'"):
        tied.check(stored(tied) | {stray: StoredTensor(stray, "F32", (1,), 0, 0)}, "x")


def test_a_head_that_is_wanted_and_missing_says_what_to_do() -> None:
    made = recipe(config(tie_word_embeddings=False), "pt")
    tensors = {name: tensor for name, tensor in stored(made).items() if name != "lm_head.weight"}
    with pytest.raises(CheckpointError, match=r"missing, 1: 'lm_head.weight'.*set tie_word_embeddings to true"):
        made.check(tensors, "x")


@pytest.mark.parametrize(
    ("stray", "hint"),
    [
        ("model.layers.1.self_attn.q_proj.lora_A.weight", "An adapter is not merged"),
        ("model.layers.1.self_attn.q_proj.qweight", "Another tool quantised them"),
        ("model.layers.1.mlp.experts.0.up_proj.weight_scale_inv", "Another tool quantised them"),
        ("model.layers.1.mlp.experts.0.up_proj.bias", "transformers before 5 gave experts biases"),
        ("score.weight", "not a language model"),
        ("model.stray", "from the same repository"),
    ],
)
def test_what_is_left_over_tells_who_wrote_it(stray: str, hint: str) -> None:
    made = recipe(config(), "pt")
    with pytest.raises(CheckpointError, match=f"left over, 1: '{stray}'.*{hint}"):
        made.check(stored(made) | {stray: StoredTensor(stray, "F32", (1,), 0, 0)}, "x")


def test_what_a_wrapper_tells() -> None:
    for prefix, hint in (("_orig_mod.model.", "A trainer's wrapper"), ("base_model.model.model.", "not merged")):
        with pytest.raises(CheckpointError, match=f"not the tensors of an ERNIE.*{hint}"):
            dialect_of([f"{prefix}norm.weight"], "x")


def test_one_error_names_every_trouble() -> None:
    made = recipe(config(), "pt")
    tensors = stored(made)
    for layer in range(3):
        del tensors[f"model.layers.{layer}.self_attn.q_proj.weight"]
        del tensors[f"model.layers.{layer}.self_attn.k_proj.weight"]
    norm = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = replace(norm, shape=(17,))
    tensors["model.embed_tokens.weight"] = replace(tensors["model.embed_tokens.weight"], dtype="F8_E4M3")
    tensors["model.layers.3.x"] = norm
    with pytest.raises(CheckpointError) as caught:
        made.check(tensors, "the folder")
    message = str(caught.value)
    assert message.startswith("the folder: ")
    assert "missing, 6: 'model.layers.0.self_attn.k_proj.weight', " in message and ", …" in message
    assert "left over, 1: 'model.layers.3.x'" in message
    assert "of a wrong shape, 1: 'model.norm.weight [17] instead of [16]'" in message
    assert "of a dtype other than BF16, F16, F32, F64, 1: 'model.embed_tokens.weight F8_E4M3'" in message


def test_uint16_stands_for_bfloat16_in_paddle_files_alone() -> None:
    made = recipe(config(), "paddle")
    assert made.check(stored(made, "U16"), "x") == []
    made = recipe(config(), "pt")
    with pytest.raises(CheckpointError, match="U16"):
        made.check(stored(made, "U16"), "x")


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_the_dialect_is_told_by_the_names(dialect: Dialect) -> None:
    assert dialect_of(stored(recipe(config(), dialect)).keys(), "x") == dialect


@pytest.mark.parametrize("names", [[], ["bert.embeddings"], ["vision_model.x", "lm_head.weight"]])
def test_tensors_of_another_model_are_refused(names: list[str]) -> None:
    with pytest.raises(CheckpointError, match="not the tensors of an ERNIE"):
        dialect_of(names, "x")


ARRAYS = {"a": np.arange(24).reshape(4, 6), "b": np.arange(100, 124).reshape(4, 6), "c": np.arange(48).reshape(2, 4, 6)}
LEAVES = {name: Stored(name, array.shape) for name, array in ARRAYS.items()}


def evaluate(expression: Expression) -> np.ndarray[Any, Any]:
    match expression:
        case Stored(name):
            return ARRAYS[name]
        case Transposed(source):
            return evaluate(source).T
        case Rows(source, start, stop):
            return evaluate(source)[start:stop]
        case Item(source, index):
            return evaluate(source)[index]
        case Interleaved(source, groups):
            runs = np.split(evaluate(source), groups)
            return np.concatenate(
                [run[[i + j for i in range(len(run) // 2) for j in (0, len(run) // 2)]] for run in runs]
            )
        case Concat(parts):
            return np.concatenate([evaluate(part) for part in parts])
        case Stack(parts, axis):
            return np.stack([evaluate(part) for part in parts], axis)


@pytest.mark.parametrize(
    "expression",
    [
        LEAVES["c"],
        Transposed(LEAVES["a"]),
        Concat((LEAVES["a"], Rows(LEAVES["b"], 1, 3))),
        Interleaved(LEAVES["a"], 1),
        Concat((Interleaved(Rows(Transposed(LEAVES["a"]), 0, 4), 1), Interleaved(Transposed(LEAVES["b"]), 1))),
        Stack((LEAVES["a"], LEAVES["b"]), 0),
        Stack((LEAVES["a"], LEAVES["b"]), 1),
        Stack((Concat((LEAVES["a"], LEAVES["b"])), Concat((LEAVES["b"], LEAVES["a"]))), 1),
        Stack((Rows(Transposed(LEAVES["a"]), 0, 3), Rows(Transposed(LEAVES["a"]), 3, 6)), 1),
        Stack(tuple(Stack((Rows(Item(LEAVES["c"], e), 0, 2), Rows(Item(LEAVES["c"], e), 2, 4)), 1) for e in (0, 1)), 0),
    ],
)
def test_shape_and_slices_of_expressions_are_those_of_the_array(expression: Expression) -> None:
    whole = evaluate(expression)
    assert shape_of(expression) == whole.shape
    for i in range(whole.shape[0]):
        np.testing.assert_array_equal(evaluate(at(expression, i)), whole[i])
        assert shape_of(at(expression, i)) == whole.shape[1:]
        for j in range(whole.shape[1]):
            np.testing.assert_array_equal(evaluate(at(at(expression, i), j)), whole[i, j])
