"""A vision-language checkpoint of one layer and no use, with ERNIE's tokenizer: for who cares what is asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ernie_rt.modeling.config import parse_config
from ernie_rt.weights.expressions import Stored
from ernie_rt.weights.recipes import recipe
from support.tokenizers import ROWS, write_ernie_tokenizer

CONFIG = {
    "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
    "model_type": "ernie4_5_moe_vl",
    "vocab_size": ROWS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
    "rope_3d": True,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "use_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "moe_num_experts": [2, 2],
    "moe_k": 1,
    "moe_intermediate_size": [8, 4],
    "moe_layer_start_index": [0, 0],
    "moe_layer_end_index": [0, 0],
    "moe_use_aux_free": True,
    "im_patch_id": 100295,
    "vision_config": {
        "depth": 1, "embed_dim": 8, "num_heads": 1, "mlp_ratio": 2, "patch_size": 14, "hidden_act": "quick_gelu"
    },
}  # fmt: skip


def write_vision_checkpoint(folder: Path, template: str | None = None, **changes: object) -> Path:
    """`changes` go into its config."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ernie_tokenizer(folder, template, visible=90000)  # Baidu's, too, has them before those of pictures
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    expressions = recipe(parse_config(config, "config.json"), "pt").weights.values()
    shapes = {name: shape for expression in expressions for name, shape in _stored(expression)}
    tensors = {name: rng.standard_normal(shape, np.float32) * np.float32(0.3) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def _stored(expression: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(expression, Stored):
        yield expression.name, expression.shape
    elif isinstance(expression, tuple):
        for part in expression:
            yield from _stored(part)
    elif is_dataclass(expression):
        for field in fields(expression):
            yield from _stored(getattr(expression, field.name))
