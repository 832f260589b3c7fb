"""How configs spell things: names of classes and fields, what an absent field means, and values that change nothing.

Beside what Baidu and transformers write, what trainers, converters and hands leave in a config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, cast

from ernie_rt.display import shown
from ernie_rt.errors import ConfigError
from ernie_rt.graph.types import DType, dtype_of
from ernie_rt.modeling.fields import Fields

TextModelType = Literal["ernie4_5", "ernie4_5_moe"]
ModelType = Literal[TextModelType, "ernie4_5_vl_moe"]

MAX_VOCAB: Final = 1 << 18
"""ERNIE has 103,424."""
DTYPES: Final = ("bfloat16", "float16", "float32")
SHORT: Final = MappingProxyType(
    {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
)
"""Other names of dtypes."""

MODEL_TYPES: Final[Mapping[str, ModelType]] = MappingProxyType(
    {
        "ernie4_5": "ernie4_5",
        "ernie4_5_moe": "ernie4_5_moe",
        "ernie4_5_vl_moe": "ernie4_5_vl_moe",
        "ernie4_5_moe_vl": "ernie4_5_vl_moe",  # Baidu's own name for it
    }
)
ARCHITECTURES: Final[Mapping[str, ModelType]] = MappingProxyType(
    {
        "Ernie4_5ForCausalLM": "ernie4_5",
        "Ernie4_5_ForCausalLM": "ernie4_5",  # until August 2025
        "Ernie4_5_MoeForCausalLM": "ernie4_5_moe",
        "Ernie4_5_VLMoeForConditionalGeneration": "ernie4_5_vl_moe",
        "Ernie4_5_VL_MoeForConditionalGeneration": "ernie4_5_vl_moe",
    }
)
WRAPPED: Final = re.compile(r"(?:FSDP)?(\w+?)(?:Pipe)?")
"""What trainers add to the name of a class: PyTorch's fully sharded one in front, PaddleFormers' pipeline behind."""
WRAPPERS: Final = frozenset(
    {"PeftModelForCausalLM", "PeftModel", "OptimizedModule", "DistributedDataParallel", "DeepSpeedEngine"}
)
"""Classes that stand around any model, whose name a trainer may have written in the place of the model's."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType({"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"})
"""transformers' attribute_map: other spellings of a field."""

_COMMON: Final[Mapping[str, object]] = MappingProxyType(
    {
        "vocab_size": 103424,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "use_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
)
DEFAULTS: Final[Mapping[TextModelType, Mapping[str, object]]] = MappingProxyType(
    {
        "ernie4_5": {
            **_COMMON,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
        },
        "ernie4_5_moe": {
            **_COMMON,
            "hidden_size": 2560,
            "intermediate_size": 12288,
            "num_hidden_layers": 28,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "moe_num_experts": 64,
            "moe_k": 6,
            "moe_intermediate_size": 1536,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": -1,
            "moe_layer_interval": 1,
            "moe_norm_min": 1e-12,
        },
    }
)
"""transformers' defaults by model type: 0.3B and 21B-A3B."""

NULL_IS_ABSENT: Final = frozenset(
    {"max_position_embeddings", "rms_norm_eps", "rope_theta", "use_bias", "tie_word_embeddings", "hidden_act",
     "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval", "moe_norm_min"}
)  # fmt: skip
"""Fields whose null says nothing. Elsewhere it has a meaning of its own, such as no token, or none at all."""

NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "hidden_act": ("silu", "swish"),
        "use_rmsnorm": (None, True),
        "partial_rotary_factor": (None, 1),
        "is_quantized": (None, False),
    }
)
"""Fields that change the computation of any model, and the values that leave it as it is implemented here."""

MOE_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "moe_gate": (None, "topk", "topk_fused"),
        "moe_gate_act": (None, "softmax"),
        "scoring_func": (None, "softmax"),
        "moe_norm_gate_logits": (None, True),
        "norm_topk_prob": (None, True),
        "moe_group_experts": (None, False),
        "moe_num_dense_experts": (None, 0),
        "moe_use_token_type_bias": (None, False),
        "n_group": (None, 0, 1),
        "topk_group": (None, 0, 1),
        "scaling_factor": (None, 1),
        "routed_scaling_factor": (None, 1),
    }
)
"""The same for MoE models (names of Baidu's training and serving code)."""


def model_type_of(fields: Mapping[str, object], where: str) -> ModelType:
    """The model type, from `model_type` or else the class in `architectures`, which must agree."""
    named, classes = fields.get("model_type"), fields.get("architectures")
    if isinstance(classes, str):
        classes = [classes]
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ConfigError(
            "impossible value", where=f"{where}: architectures", expected="a list of names", found=shown(classes)
        )
    names = [name for name in cast("list[str]", classes or []) if name not in WRAPPERS]
    known = MODEL_TYPES.get(named) if isinstance(named, str) else None
    found = _owner(names[0]) if named is None and names else known
    if found is None:
        raise ConfigError(
            "not a model that ernie-rt runs",
            where=f"{where}: model_type",
            expected=", ".join(dict.fromkeys(MODEL_TYPES.values())),
            found="nothing" if named is None else shown(named),
            hint="ernie-rt runs the models of ERNIE 4.5 alone",
        )
    wrong = next((name for name in names if _owner(name) != found), None)
    if wrong is not None:
        raise ConfigError(
            f"not a class of model_type {named or found}",
            where=f"{where}: architectures",
            expected=" or ".join(name for name, owner in ARCHITECTURES.items() if owner == found),
            found=shown(wrong),
        )
    return found


def _owner(name: str) -> ModelType | None:
    match = WRAPPED.fullmatch(name[:80])
    return ARCHITECTURES.get(match[1]) if match else None


def dtype_in(read: Fields) -> DType:
    """`dtype`, else `torch_dtype`, else bfloat16, in which every ERNIE 4.5 is published."""
    name = "torch_dtype" if read.absent("dtype") else "dtype"
    value = read.value(name)
    if value is None or value == "auto":
        return "bfloat16"
    short = re.sub(r"^(torch|paddle)\.", "", value) if isinstance(value, str) else ""
    if SHORT.get(short, short) not in DTYPES:
        raise read.refusal(name, "not supported", ", ".join(DTYPES), value)
    return dtype_of(SHORT.get(short, short))


def token_id_in(read: Fields, name: str) -> int | None:
    """A token's id; null and -1 are none."""
    return None if read.absent(name) else _given(read.integer(name, -1, MAX_VOCAB - 1))


def token_ids_in(read: Fields, name: str) -> tuple[int, ...]:
    """The ids of one token or several; null and -1 are none."""
    ids = () if read.absent(name) else read.integers(name, -1, MAX_VOCAB - 1)
    return tuple(id for id in ids if id >= 0)


def _given(id: int) -> int | None:
    return id if id >= 0 else None


def refuse_window(read: Fields, longest: int) -> None:
    """Refuse attention that reaches less far back than `longest` tokens, in whatever way a config says so."""
    layers = read.value("layer_types")
    if layers is not None and not (isinstance(layers, list) and all(kind == "full_attention" for kind in layers)):
        raise read.refusal("layer_types", "not supported", "full_attention in each layer", layers)
    used = read.value("use_sliding_window")
    if used not in (None, True, False):
        raise read.refusal("use_sliding_window", "impossible value", "true or false", used)
    if used is not False and not read.absent("sliding_window"):
        window = read.integer("sliding_window", -1, 1 << 62)
        if 0 < window < longest:
            hint = "The field changes what the model computes; choose a release of the model without it"
            raise read.refusal("sliding_window", "not supported", f"null, or {longest} or more", window, hint)


def refuse_quantization(read: Fields) -> None:
    """Refuse weights that another tool quantised, by its name."""
    for name in ("quantization_config", "quantization"):
        value = read.value(name)
        if value is None or value == {}:
            continue
        keys = ("quant_method", "quantization", "quant_algo", "mode")
        named = [value[key] for key in keys if isinstance(value.get(key), str)] if isinstance(value, Mapping) else []
        if isinstance(value, Mapping) and not named and {"bits", "group_size"} <= value.keys():
            named = ["MLX"]
        raise read.refusal(
            name,
            "not supported, weights that another tool quantised",
            "none",
            named[0] if named else value,
            "Take the model that they were made of, and quantise that: `ernie-rt quantize`",
        )
