"""Small configs, made without files."""

from __future__ import annotations

from ernie_rt.modeling.config import ModelConfig, parse_config

DENSE = {
    "model_type": "ernie4_5",
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
MOE = DENSE | {
    "model_type": "ernie4_5_moe",
    "num_hidden_layers": 3,
    "moe_num_experts": 6,
    "moe_k": 2,
    "moe_intermediate_size": 8,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
}


def small(**fields: object) -> ModelConfig:
    """A small MoE config, or a dense one with `model_type="ernie4_5"`, with these fields changed."""
    base = DENSE if fields.get("model_type") == "ernie4_5" else MOE
    return parse_config(base | fields, "config.json")
