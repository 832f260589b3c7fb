"""The published ERNIE 4.5 models, so that one can be described and measured without its checkpoint.

What is known of each comes from files of Baidu's as far as any could be found: `Evidence` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from ernie_rt.modeling.config import ModelConfig, parse_config

WHERE: Final = "ernie_rt.modeling.families"
DENSE_0_3B: Final = parse_config(
    {
        "model_type": "ernie4_5",
        "vocab_size": 103424,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    WHERE,
)
MOE_21B_A3B: Final = parse_config(
    {
        "model_type": "ernie4_5_moe",
        "vocab_size": 103424,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 28,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "num_nextn_predict_layers": 1,
        "moe_num_experts": 64,
        "moe_k": 6,
        "moe_intermediate_size": 1536,
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "moe_use_aux_free": True,
    },
    WHERE,
)
MOE_300B_A47B: Final = parse_config(
    {
        "model_type": "ernie4_5_moe",
        "vocab_size": 103424,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 54,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "num_nextn_predict_layers": 1,
        "moe_num_experts": 64,
        "moe_k": 8,
        "moe_intermediate_size": 3584,
        "moe_num_shared_experts": 0,
        "moe_layer_start_index": 3,
        "moe_use_aux_free": True,
    },
    WHERE,
)
VL_28B_A3B: Final = parse_config(
    {
        "model_type": "ernie4_5_moe_vl",
        "vocab_size": 103424,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 28,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "moe_num_experts": [64, 64],
        "moe_k": 6,
        "moe_intermediate_size": [1536, 512],
        "moe_num_shared_experts": 2,
        "moe_layer_start_index": 1,
        "moe_use_aux_free": True,
    },
    WHERE,
)
VL_424B_A47B: Final = parse_config(
    {
        "model_type": "ernie4_5_moe_vl",
        "vocab_size": 103424,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 54,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "moe_num_experts": [64, 64],
        "moe_k": 8,
        "moe_intermediate_size": [3584, 1536],
        "moe_num_shared_experts": 0,
        "moe_layer_start_index": 3,
        "moe_use_aux_free": True,
    },
    WHERE,
)


Standing = Literal["digest", "copy", "renders", "unseen"]
STANDINGS: Final[Mapping[Standing, str]] = {
    "digest": "compared with a file that has the sha256 which the Hub publishes",
    "copy": "compared with a public copy of the file, whose digest was not checked",
    "renders": "renders 24 published conversations to the byte; the file itself was not found",
    "unseen": "no file of Baidu's was found: follows transformers, FastDeploy and what people report",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far what ernie-rt knows of a published model was held against Baidu's own files, file by file.

    `tokens` are added_tokens.json and special_tokens_map.json, `tokenizer` is tokenizer.model.
    """

    config: Standing = "unseen"
    tokenizer_config: Standing = "unseen"
    tokens: Standing = "unseen"
    template: Standing = "unseen"
    tokenizer: Standing = "unseen"
    weights: Standing = "unseen"


@dataclass(frozen=True, slots=True)
class Family:
    """A published model: its config, and where its PyTorch-layout weights are on the Hugging Face Hub."""

    name: str
    config: ModelConfig
    hub_id: str
    summary: str
    aliases: tuple[str, ...]
    """Full names that people and file listings use for it."""
    evidence: Evidence = Evidence()


def _family(name: str, config: ModelConfig, repository: str, summary: str, evidence: Evidence = Evidence()) -> Family:
    """`repository` is the Hub's name; so are it without the -PT of the layout, and with -Paddle instead."""
    full = f"ERNIE-4.5-{name}"
    aliases = dict.fromkeys((full, repository, f"baidu/{repository}", f"{full}-Paddle", f"baidu/{full}-Paddle"))
    return Family(name, config, f"baidu/{repository}", summary, tuple(aliases), evidence)


SEES_28B: Final = "pictures and videos, 64 experts for text and 64 for vision, 6 active and 2 shared"
SEES_424B: Final = "pictures and videos, 64 experts for text and 64 for vision, 8 active"
CHAT: Final = Evidence(tokenizer_config="digest", tokens="digest", template="digest")
"""Of the three post-trained text models, whose files are the same; they were put together from public facts."""

FAMILIES: Final[tuple[Family, ...]] = (
    _family("0.3B", DENSE_0_3B, "ERNIE-4.5-0.3B-PT", "dense, 0.36B parameters, chat", replace(CHAT, config="copy")),
    _family("0.3B-Base", DENSE_0_3B, "ERNIE-4.5-0.3B-Base-PT", "dense, 0.36B parameters, completion"),
    _family("21B-A3B", MOE_21B_A3B, "ERNIE-4.5-21B-A3B-PT", "64 experts, 6 active and 2 shared, chat", CHAT),
    _family("21B-A3B-Base", MOE_21B_A3B, "ERNIE-4.5-21B-A3B-Base-PT", "64 experts, 6 active and 2 shared, completion"),
    _family(
        "21B-A3B-Thinking",
        MOE_21B_A3B,
        "ERNIE-4.5-21B-A3B-Thinking",
        "64 experts, 6 active and 2 shared, reasoning",
        Evidence(template="renders"),
    ),
    _family("300B-A47B", MOE_300B_A47B, "ERNIE-4.5-300B-A47B-PT", "64 experts, 8 active, chat", CHAT),
    _family("300B-A47B-Base", MOE_300B_A47B, "ERNIE-4.5-300B-A47B-Base-PT", "64 experts, 8 active, completion"),
    _family("VL-28B-A3B", VL_28B_A3B, "ERNIE-4.5-VL-28B-A3B-PT", f"{SEES_28B}, chat", Evidence(config="copy")),
    _family(
        "VL-28B-A3B-Base",
        VL_28B_A3B,
        "ERNIE-4.5-VL-28B-A3B-Base-PT",
        f"{SEES_28B}, completion",
        Evidence(config="copy"),
    ),
    _family(
        "VL-28B-A3B-Thinking",
        VL_28B_A3B,
        "ERNIE-4.5-VL-28B-A3B-Thinking",
        f"{SEES_28B}, reasoning",
        Evidence(config="copy", tokens="digest"),
    ),
    _family("VL-424B-A47B", VL_424B_A47B, "ERNIE-4.5-VL-424B-A47B-PT", f"{SEES_424B}, chat", Evidence(config="copy")),
    _family("VL-424B-A47B-Base", VL_424B_A47B, "ERNIE-4.5-VL-424B-A47B-Base-PT", f"{SEES_424B}, completion"),
)


def find(name: str) -> Family | None:
    """The family that `name` or one of its aliases means, whatever the case; None when there is none."""
    wanted = name.casefold()
    for family in FAMILIES:
        if wanted in (known.casefold() for known in (family.name, family.hub_id, *family.aliases)):
            return family
    return None
