"""Small checkpoints with random weights, written without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from ernie_rt.modeling.config import parse_config
from ernie_rt.weights.expressions import stored_in
from ernie_rt.weights.recipes import recipe

DENSE: dict[str, Any] = {
    "model_type": "ernie4_5",
    "vocab_size": 203,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
MOE: dict[str, Any] = DENSE | {
    "model_type": "ernie4_5_moe",
    "use_bias": True,
    "tie_word_embeddings": False,
    "moe_num_experts": 3,
    "moe_k": 2,
    "moe_intermediate_size": 32,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
}


def write_drawn(folder: Path, config: dict[str, Any]) -> Path:
    """Write a checkpoint of this config: bfloat16, the router float32."""
    rng = np.random.default_rng(3)
    tensors: dict[str, np.ndarray] = {}
    for name, expression in recipe(parse_config(config, "config.json"), "pt").weights.items():
        for stored in stored_in(expression):
            mean, std = (1.0, 0.2) if name.endswith("norm") else (0.0, stored.shape[-1] ** -0.5)
            wide = name.endswith(("mlp.gate", "correction_bias"))
            values = rng.normal(mean, std, stored.shape)
            tensors[stored.name] = values.astype(np.float32 if wide else ml_dtypes.bfloat16)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
