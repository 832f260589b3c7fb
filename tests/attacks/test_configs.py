"""Fields of every config of a folder that are what no model has: sizes that overflow or are none, and code to run.
Single fields of a text model are in tests/modeling/test_config.py and tests/cli/test_bad_input.py."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import ernie_rt
from ernie_rt.errors import ConfigError, ErnieRtError
from ernie_rt.modeling import spellings, vision_language
from ernie_rt.modeling.config import parse_config
from support.attempts import accepted, accepted_each, attempt, refused, refused_each
from support.hostile import DOORS, Break, both, changed, copied, put
from support.untrained import CONFIG

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 64, 2**31, 2**63, 2**64 + 1, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, "", "x",
    "64", "1e3", "\0", "\x1b[2J", "\u202e", "x" * 100_000, "../x", "__import__('os').abort()", [], [1], [1, 2], [[1]],
    [None], [64] * 65, ["x"] * 1000, {}, {"a": 1}, {"rope_type": "x"}, {"rope_theta": -1}, {"hidden_size": 2**63},
)  # fmt: skip
CODE: dict[str, Any] = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]},
    "custom_pipelines": {"text-generation": {"impl": "evil.Pipeline", "pt": ["evil.Model"]}},
    "_attn_implementation_internal": "evil/kernels:attention",
    "_attn_implementation": "evil/kernels",
    "attn_implementation": {"": "evil/kernels"},
    "trust_remote_code": True,
    "_commit_hash": "../../evil",
    "_name_or_path": "../../evil",
    "base_model_name_or_path": "evil/model",
    "tokenizer_class": "evil.Tokenizer",
    "processor_class": "evil.Processor",
    "feature_extractor_type": "evil.Extractor",
    "image_processor_type": "evil.Images",
    "transformers.js_config": {"use_external_data_format": True},
    "quantization_config": None,
    "generation_config": {"custom_generate": "evil"},
    "custom_generate": "evil",
    "__class__": "evil",
    "__reduce__": ["os.system", "true"],
    "py/object": "os.system",
    "!!python/object/apply:os.system": ["true"],
    "chat_template_kwargs": {"x": "evil"},
}


ROTARY = ("rope_theta", "rope_type", "type", "mrope_section", "factor", "partial_rotary_factor")


def names() -> list[str]:
    """Every field that is looked at, and some more."""
    known: set[str] = {*CONFIG, *spellings.NEUTRAL, *spellings.MOE_NEUTRAL, *spellings.ALIASES, *vision_language.FLAT}
    known |= {*vision_language.NEUTRAL, "text_config", "vision_config", "rope_scaling", "rope_parameters", "dtype"}
    return sorted(known | {"compression_ratio", "num_nextn_predict_layers", "quantization_config", "sliding_window"})


def base(kind: str) -> dict[str, Any]:
    if kind == "text":
        return dict(CONFIG)
    folder = Path(ernie_rt.__file__).parent / "demo-vl"
    return dict(json.loads((folder / "config.json").read_text()))


def parsed(fields: Mapping[str, Any]) -> None:
    """Parse it: a named error that is short and names the file, or none."""
    try:
        parse_config(fields, "config.json")
    except ErnieRtError as error:
        assert str(error).startswith("config.json: ") and len(str(error)) < 1000, error
        assert isinstance(error, ConfigError)


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_each_field_is_each_value(kind: str) -> None:
    fields = base(kind)
    for name, value in itertools.product(names(), VALUES):
        parsed(fields | {name: value})


@pytest.mark.parametrize("section", ["vision_config", "text_config", "rope_scaling", "rope_parameters"])
def test_each_field_of_a_section_is_each_value(section: str) -> None:
    for kind in ("text", "vision"):
        fields = base(kind)
        inner = fields.get(section) if isinstance(fields.get(section), dict) else {}
        for name in sorted(
            {*(inner or {}), *vision_language.TOWER, "rope_theta", "rope_type", "mrope_section", "factor"}
        ):
            for value in VALUES:
                parsed(fields | {section: {**(inner or {}), name: value}})


def test_every_field_at_once_is_each_value() -> None:
    for kind, value in itertools.product(("text", "vision"), VALUES):
        with pytest.raises(ConfigError) if value is not None else pytest.raises(ErnieRtError):
            parse_config(dict.fromkeys(names(), value), "config.json")
        parsed(base(kind) | {name: value for name in names() if name not in ("model_type", "architectures")})


HUGE: tuple[dict[str, Any], ...] = (
    {"max_position_embeddings": 1 << 24},
    {"vocab_size": 1 << 18},
    {"num_hidden_layers": 1024, "moe_num_experts": 16, "moe_layer_end_index": 1023},
    {"num_attention_heads": 1024, "num_key_value_heads": 1024, "head_dim": 1024},
    {"hidden_size": 1 << 16, "intermediate_size": 1 << 20},
    {"moe_intermediate_size": 1 << 16, "moe_num_experts": 1024},
    {"num_nextn_predict_layers": 16, "num_hidden_layers": 1024},
)
"""Sizes each of which is allowed, and as large as they may be together, or nearly."""


@pytest.mark.parametrize("fields", HUGE, ids=str)
@pytest.mark.parametrize("door", ["run", "quantize", "export", "plan"])
def test_sizes_that_only_a_header_can_deny(door: str, fields: dict[str, Any], untrained: Path, tmp_path: Path) -> None:
    """Nothing is allocated before the weights are known to be of that size."""
    folder = copied(untrained, tmp_path / "model")
    changed("config.json", **fields)(folder)
    if fields == {"max_position_embeddings": 1 << 24}:  # which no weight denies
        if door != "export":
            assert attempt(DOORS[door], folder).kinds == ()
        return
    refused(DOORS[door], folder, "CheckpointError", "the weights do not fit config.json", home=tmp_path)


def test_fields_that_name_code(untrained: Path, tmp_path: Path) -> None:
    """In every file that has fields: none is followed."""
    folder = copied(untrained, tmp_path / "model")
    canary = tmp_path / "canary"
    for module in ("evil", "evil/__init__", "modeling_evil", "kernels", "custom_generate/generate", "evil/kernels"):
        path = folder / f"{module}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"open({str(canary)!r}, 'w')")
    for name in (
        "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
        "preprocessor_config.json", "processor_config.json", "adapter_config.json", "model.safetensors.index.json",
    ):  # fmt: skip
        changed(name, **CODE)(folder)
    for door in ("run", "encode", "quantize", "export"):
        fate = accepted(DOORS[door], folder, tmp_path)
        assert not [path for path in fate.opened if path.endswith((".py", ".pyc")) and str(tmp_path) in path]
    assert not canary.exists() and not [name for name in sys.modules if "evil" in name]
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert "auto_map" not in config, "whoever trusts the exported folder is told to run nothing"


GENERATION: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} {value!r:.30}": ({"do_sample": True, name: value}, name)
        for name, values in {
            "temperature": (-1, 1e308, "1", True, [], {}, 10**400),
            "top_p": (-0.1, 1.5, "0.9", [0.9], False),
            "top_k": (-2, 1.5, "50", 2**64, [50]),
            "min_p": (-1, 2, "x"),
            "repetition_penalty": (0, -1, "1", 1e308, True),
            "max_new_tokens": (0, -1, 1.5, "x", True),
            "eos_token_id": (-2, 1000, 10**12, "2", 1.5, [2, 1000], [[2]], [True], {}),
        }.items()
        for value in values
    },
    **{f"do_sample {value!r}": ({"do_sample": value}, "do_sample") for value in (1, "true", [], {})},
}


def test_generation_configs(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    cases = [(put("generation_config.json", fields), "ConfigError", words) for fields, words in GENERATION.values()]
    refused_each(DOORS["encode"], folder, cases, "/generation_config.json")


def test_values_of_a_generation_config_that_nobody_reads(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    unread = ("max_length", "num_beams", "stop_strings", "bad_words_ids", "\x1b[2J", "x" * 1000)
    changes = [put("generation_config.json", dict.fromkeys(unread, value)) for value in VALUES]
    accepted_each(DOORS["encode"], folder, changes)


PICTURES: dict[str, tuple[Break, str, str]] = {
    **{
        f"{name} {value!r:.30}": (changed("preprocessor_config.json", **{name: value}), "ConfigError", name)
        for name, values in {
            "max_pixels": (0, -1, 10**12, "x", True, 1.5, [1], 100),
            "min_pixels": (0, -1, 2**63, "x", True),
            "patch_size": (0, 16, "14", [14]),
            "merge_size": (1, 0, "2", {}),
            "image_mean": (0.5, [], [0.5] * 3, "x", [[0.48]], {}),
            "rescale_factor": (0, 1e308, "x"),
            "do_resize": (False, "yes", 0),
            "resample": (99, "bicubic", -1),
        }.items()
        for value in values
    },
    "as many pixels as there are": (
        changed("preprocessor_config.json", size={"longest_edge": 2**63}, max_pixels=None), "ConfigError", "max_pixels",
    ),
}  # fmt: skip


def test_configs_of_what_prepares_pictures(tmp_path: Path) -> None:
    folder = copied(Path(ernie_rt.__file__).parent / "demo-vl", tmp_path / "model")
    before = put("preprocessor_config.json", (folder / "preprocessor_config.json").read_bytes())
    cases = [(both(before, damage), kind, words) for damage, kind, words in PICTURES.values()]
    refused_each(DOORS["encode"], folder, cases, "preprocessor_config.json")
