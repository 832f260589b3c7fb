"""A small vision-language model whose patches are those of real pictures, with synthetic weights."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

import ernie_rt
from ernie_rt.loading import Located
from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.vision.item import Item
from ernie_rt.weights.synthetic import Synthetic

PLACEHOLDER: Final = 60
FIELDS: Final[dict[str, Any]] = {
    "model_type": "ernie4_5_moe_vl",
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "moe_num_experts": [6, 6],
    "moe_k": 2,
    "moe_intermediate_size": [16, 8],
    "moe_num_shared_experts": 1,
    "moe_layer_start_index": 1,
    "max_position_embeddings": 512,
    "rope_scaling": {"type": "default", "mrope_section": [3, 3, 2]},
    "tie_word_embeddings": True,
    "im_patch_id": PLACEHOLDER,
    "image_start_token_id": 61,
    "image_end_token_id": 62,
    "video_start_token_id": 63,
    "video_end_token_id": 64,
    "vision_config": {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
}


def config() -> ModelConfig:
    return parse_config(FIELDS, "a small model that sees")


def load(**options: Any) -> ernie_rt.Model:
    given: dict[str, Any] = {"weights": Synthetic(3), "backend": "reference", "threads": 1}
    return ernie_rt.load(Located(config()), **given | options)


def picture(rows: int = 2, columns: int = 3, seed: int = 0) -> Item:
    """One of so many tokens, of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1, rows * 28, columns * 28, 3), np.uint8)
    return Item.of("image", pixels)


def film(frames: int = 4, rows: int = 1, columns: int = 2, seed: int = 0) -> Item:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, rows * 28, columns * 28, 3), np.uint8)
    return Item.of("video", pixels)
