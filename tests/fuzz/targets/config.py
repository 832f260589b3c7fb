"""config.json: of a right one, in each spelling, one to three fields are broken, and an error has to name one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.errors import ConfigError
from ernie_rt.modeling import rotary, spellings, vision_language
from ernie_rt.modeling.config import MAX_PARAMETERS, ModelConfig, parse_config
from ernie_rt.modeling.graphs import build_graphs
from ernie_rt.untrusted_json import parse_json
from fuzz.mutations import BORDERS, TEXTS, Raw, damaged, dumped, value
from fuzz.sites import ROOT
from fuzz.target import Attempt, Target
from support.configs import DENSE, MOE
from support.vision_language import FLAT, NESTED

WHOLE = (0, 1, 2, 3, 4, 5, 7, 8, 16, 20, 24, 1024, 1025, 1 << 12, 1 << 16, 1 << 20, *BORDERS, -1, -2, 2.0, 2.5, True)
PLAIN = {
    "dtype": ("bfloat16", "torch.float16", "paddle.half", "fp32", "auto", "int8", "float64", "torch.", 3),
    "hidden_act": ("silu", "swish", "gelu", "quick_gelu"),
    "model_type": (*spellings.MODEL_TYPES, "llama", "ernie", 3),
    "architectures": (*([name] for name in spellings.ARCHITECTURES), ["FSDPErnie4_5ForCausalLM"], "Ernie4_5ForCausalLM",
                      ["PeftModel"], ["LlamaForCausalLM"], [3], {}, ["Ernie4_5_MoeForCausalLM", "PeftModel"]),
    "layer_types": (["full_attention"], ["full_attention", "sliding_attention"], "full_attention", []),
    "use_sliding_window": (True, False, "yes", 2),
    "sliding_window": (0, 1, 2, 100, 128, 255, 1 << 20, -1, -5, "x"),
    "quantization_config": ({}, {"quant_method": "awq"}, {"bits": 4, "group_size": 64}, {"x": 1}, "int4", [1]),
    "quantization": ({"mode": "affine"}, {"bits": 4, "group_size": 64}, None),
    "eos_token_id": ([], [2], [2, 3], [2, -1], [1 << 17], -1, [[2]], [2] * 65, 60, 61),
    "moe_num_experts": ([6, 6], [6, 8], [8, 6], [7, 8], [], [6, 6, 6], 1, 2, 8, 16, 1024, [1024, 1024], 6000),
    "moe_intermediate_size": ([8, 4], [8], [], [8, 8, 8], 65537),
    "moe_layer_start_index": ([1, 1], [1, 2], 2, 3, 5, [], [0, 5], [0, 1]),
    "moe_layer_end_index": ([2, 2], [29, 28], [-1, -1], [1, 2], [0, -1], 0, -1, 1, []),
    "moe_capacity": ([1, 2, 3], [], [-1], "x"),
    "rope_scaling": (
        {"type": "default"}, {"type": "linear", "factor": 1}, {"type": "dynamic", "factor": 1.0}, {"factor": 2},
        {"rope_type": "yarn", "factor": 4}, {"rope_type": 3}, {"rope_theta": 5}, {"x": 1}, "linear", [],
        {"mrope_section": [3, 3, 2]}, {"mrope_section": [3, 2, 3]}, {"mrope_section": 8}, {"mrope_section": [3, 3]},
        {"mrope_section": [22, 22, 20]}, {"partial_rotary_factor": 0.5},
    ),
    "mlp_layer_types": (["dense", "sparse", "sparse"], ["sparse", "dense", "sparse"], [], ["dense"],
                        ["sparse"] * 1025, "x"),
    "pixel_hidden_size": (32, 33),
    "freq_allocation": (2, 3, 4, 5, 20),
    "num_hidden_layers": (1, 2, 3, 4, 5, 6, 7, 8, 17, 129, 256, 1024),
    "moe_k": (1, 2, 7, 9, 65, 1024),
    "head_dim": (2, 7, 8, 9, 15, 17, 16, 1023),
    "text_config": (None, {}, "x", [], {"hidden_size": 8}),
    "vision_config": (None, {}, "x", {"depth": 0}),
}  # fmt: skip
"""What may stand in a field that is no mere number."""
PLAIN["torch_dtype"] = PLAIN["dtype"]
PLAIN["rope_parameters"] = PLAIN["rope_scaling"]
TOWER_FIELDS = {
    "embed_dim": (32, 33, 64), "spatial_patch_size": (14, 16), "mlp_ratio": (4, 4.0, 0.5, 65),
    "intermediate_size": (None, 128), "num_heads": (1, 2, 3, 5, 257), "depth": (1, 256, 257),
    "rope_parameters": ({"rope_type": "axial"}, {"rope_theta": 5}, "axial", {"rope_type": "yarn"}, 3),
    "hidden_size": (32, 30, 8193, 8192),
}  # fmt: skip
NEUTRAL = {
    **spellings.NEUTRAL, **spellings.MOE_NEUTRAL, **vision_language.NEUTRAL,
    "spatial_conv_size": (2,), "temporal_conv_size": (2,),
}  # fmt: skip
KNOWN = sorted(
    {*PLAIN, *NEUTRAL, *spellings.ALIASES, *vision_language.FLAT, *vision_language.NESTED, "head_dim",
     "compression_ratio", "moe_use_aux_free", "num_nextn_predict_layers", *DENSE, *MOE}
)  # fmt: skip
"""Every field that is read at the top."""
KNOWN_BELOW = {
    "text_config": sorted({*KNOWN} - {"model_type", "architectures", "text_config", "vision_config"}),
    "vision_config": sorted({*vision_language.TOWER, *vision_language.TOWER_NEUTRAL, *TOWER_FIELDS}),
    "rope_parameters": sorted(
        {*rotary.NEUTRAL, *rotary.UNUSED, "rope_type", "type", "rope_theta", "mrope_section", "x"}
    ),
}
KNOWN_BELOW["rope_scaling"] = KNOWN_BELOW["rope_parameters"]
ALIASES = {**spellings.ALIASES, "embed_dim": "hidden_size", "spatial_patch_size": "patch_size"}
ANOTHER_MODEL = frozenset({"model_type", "architectures", "text_config"})
"""Fields that say which others there are: with another one, all of these may be wrong."""
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "moe_intermediate_size",
    "moe_num_experts",
    "vocab_size",
)
LARGE = DENSE | {"hidden_size": 1 << 13, "intermediate_size": 1 << 20, "num_hidden_layers": 128}
LARGE_FLAT = FLAT | {
    "hidden_size": 8192, "moe_intermediate_size": [8, 65536], "moe_num_experts": [1024, 1024], "num_hidden_layers": 2,
    "head_dim": 16,
}  # fmt: skip
"""Not much smaller than a model may be."""


def bases() -> list[dict[str, Any]]:
    """Right configs: small ones and those that Baidu publishes."""
    published = [
        json.loads(path.read_text()) for path in sorted((ROOT / "tests/data/ernie45_vl").glob("*.config.json"))
    ]
    bare = [{"model_type": "ernie4_5"}, {"architectures": ["Ernie4_5_MoeForCausalLM"]}]
    every: list[dict[str, Any]] = [
        DENSE,
        MOE,
        NESTED,
        FLAT,
        NESTED,
        FLAT,
        LARGE,
        LARGE_FLAT,
        LARGE_FLAT,
        *bare,
        *published,
    ]
    for base in every:
        parse_config(base, "config.json")
    return every


def other(rng: Random, name: str, inside: str) -> Any:
    """A value for a field: one that it has a meaning for, or any."""
    if rng.random() < 0.15:
        return value(rng)
    special = TOWER_FIELDS.get(name, ()) if inside == "vision_config" else PLAIN.get(name, ())
    if special and rng.random() < 0.8:
        return rng.choice(special)
    neutral = vision_language.TOWER_NEUTRAL if inside == "vision_config" else NEUTRAL
    if name in neutral:
        return rng.choice((*neutral[name], *neutral[name], 2, False, "other"))
    return rng.choice(WHOLE) if rng.random() < 0.8 else rng.choice(TEXTS)


def broken(rng: Random, base: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """A config with some fields changed, and their names."""
    config: dict[str, Any] = json.loads(json.dumps(base))
    names = set()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        section, inside = config, ""
        while (below := [key for key in KNOWN_BELOW if isinstance(section.get(key), dict)]) and rng.random() < 0.6:
            inside = rng.choice(below)
            section = section[inside]
        name = rng.choice(KNOWN_BELOW.get(inside, KNOWN))
        if rng.random() < 0.5 and section:
            name = rng.choice(sorted(section))
        if len(str(base.get("hidden_size"))) > 3 and rng.random() < 0.3:
            section, inside, name = config, "", rng.choice(SIZES)
        names.add(name)
        match rng.randrange(12):
            case 0:
                section.pop(name, None)
            case 1:
                old = section.get(name)
                section[name] = Raw(f"{dumped(old)}, {json.dumps(name)}: {dumped(other(rng, name, inside))}")
            case _:
                section[name] = other(rng, name, inside)
    return config, names


def check(error: ConfigError, names: set[str]) -> None:
    """An error has to say which field is wrong."""
    known = {*names, *(ALIASES.get(name, name) for name in names)}
    known |= {inner for name in names for inner in KNOWN_BELOW.get(name, ())}
    words = set(re.findall(r"\w+", str(error)))
    assert known & words or names & ANOTHER_MODEL, f"an error names none of {sorted(names)}: {error}"


def hold(config: ModelConfig) -> None:
    """What is true of every config that is accepted."""
    assert config.num_hidden_layers * config.hidden_size * config.intermediate_size <= MAX_PARAMETERS
    assert config.num_attention_heads % config.num_key_value_heads == 0 == config.head_dim % 2
    assert all(0 <= id < config.vocab_size for id in config.eos_token_id)
    assert config.text_alone.sees is None


def build(config: ModelConfig) -> None:
    """Graphs are made of every config, before a weight is read."""
    if config.num_hidden_layers <= 3 and (config.vision is None or config.vision.tower.depth <= 2):
        build_graphs(config)


def start(scratch: Path) -> Attempt:
    every = bases()

    def attempt(rng: Random) -> None:
        tree, names = broken(rng, rng.choice(every))
        data = dumped(tree).encode()
        if rng.random() < 0.1:
            data, names = damaged(rng, data), {"model_type"}
        fields = parse_json(data, where="config.json", strict=False)
        if not isinstance(fields, dict):
            return
        try:
            config = parse_config(fields, "config.json")
        except ConfigError as error:
            check(error, names)
            raise
        hold(config)
        if rng.random() < 0.1:
            build(config)

    return attempt


TARGET = Target(
    "config",
    (
        "ernie_rt.modeling.config",
        "ernie_rt.modeling.fields",
        "ernie_rt.modeling.rotary",
        "ernie_rt.modeling.spellings",
        "ernie_rt.modeling.vision_language",
    ),
    start,
    share=8_000,
)
