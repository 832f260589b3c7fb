"""A small mixture-of-experts checkpoint with random weights: quick to load and to run.

The folder has the layout of a -PT release of a base model, with no chat template: config.json, model.safetensors,
tokenizer.model. The same bytes every time.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import sentencepiece
from safetensors.numpy import save

from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.writing import write_atomic

SEED: Final = 45
CONFIG: Final[dict[str, object]] = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 1000,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "moe_num_experts": 8,
    "moe_k": 2,
    "moe_intermediate_size": 64,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": -1,
    "moe_layer_interval": 1,
    "moe_use_aux_free": True,
}

WORDS: Final = {
    "who": "the baker|a young pilot|my neighbour|the old teacher|an engineer|our cat|the river|a small robot",
    "does": "watches|paints|remembers|repairs|carries|looks for|writes about|listens to|forgets|follows",
    "what": "the harbour|a letter|seven bridges|the morning train|an orange kite|the quiet mountain|a song",
    "when": "before dawn|in the rain|every Sunday|without a word|near the market|for 12 hours|since 1987",
    "谁": "老师|邻居的猫|年轻的工程师|我的朋友|小机器人|那条河|面包师|飞行员",
    "何时": "清晨|下雨的时候|每个星期天|在市场旁边|三点钟|冬天里|很久以前",
    "做": "看着|修理|记得|画下|寻找|带来|写到|听见",
    "什么": "一封信|七座桥|早班火车|橙色的风筝|安静的山|一首歌|海港的灯",
}
SENTENCES: Final = (
    "{who} {does} {what} {when}, and the others know it.",
    "{何时},{谁}{做}{什么}。",
    "Question {number}: what does {who} do {when}?",
    "第{number}题:{谁}{何时}{做}什么?",
)


def sentences() -> Iterator[str]:
    """English and Chinese from a tiny grammar: enough to learn merges from."""
    choose = random.Random(SEED).choice
    for number in range(300):
        words = {role: choose(choices.split("|")) for role, choices in WORDS.items()}
        for sentence in SENTENCES:
            text = sentence.format(number=number, **words)
            yield text[0].upper() + text[1:]


def tokenizer_model() -> bytes:
    """Train the tokenizer: byte-pair merges, digits apart, byte fallback for everything unseen."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=sentences(),
        model_writer=model,
        model_type="bpe",
        vocab_size=CONFIG["vocab_size"],
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        max_sentencepiece_length=8,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def weights(config: ModelConfig) -> dict[str, np.ndarray[Any, Any]]:
    """Random tensors under the names of a -PT release: bfloat16, but the router's in float32."""
    moe = config.moe
    assert moe is not None
    hidden, head_dim = config.hidden_size, config.head_dim
    rng = np.random.default_rng(SEED)
    tensors: dict[str, np.ndarray[Any, Any]] = {}

    def put(name: str, *shape: int, scale: float | None = None, dtype: Any = ml_dtypes.bfloat16) -> None:
        values = rng.standard_normal(shape, np.float32) * (shape[-1] ** -0.5 if scale is None else scale)
        tensors[f"model.{name}"] = values.astype(dtype)

    def put_mlp(name: str, width: int) -> None:
        put(f"{name}.gate_proj.weight", width, hidden)
        put(f"{name}.up_proj.weight", width, hidden)
        put(f"{name}.down_proj.weight", hidden, width)

    def put_norm(name: str) -> None:
        tensors[f"model.{name}.weight"] = np.ones(hidden, ml_dtypes.bfloat16)

    # Small beside what the layers add to it; otherwise the tied head would predict each token to follow itself.
    put("embed_tokens.weight", config.vocab_size, hidden, scale=0.05)
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        put_norm(f"{name}.input_layernorm")
        put(f"{name}.self_attn.q_proj.weight", config.num_attention_heads * head_dim, hidden)
        put(f"{name}.self_attn.k_proj.weight", config.num_key_value_heads * head_dim, hidden)
        put(f"{name}.self_attn.v_proj.weight", config.num_key_value_heads * head_dim, hidden)
        put(f"{name}.self_attn.o_proj.weight", hidden, config.num_attention_heads * head_dim)
        put_norm(f"{name}.post_attention_layernorm")
        if not config.is_moe_layer(layer):
            put_mlp(f"{name}.mlp", config.intermediate_size)
            continue
        put(f"{name}.mlp.gate.weight", moe.moe_num_experts, hidden, dtype=np.float32)
        put(f"{name}.mlp.moe_statics.e_score_correction_bias", 1, moe.moe_num_experts, scale=0.05, dtype=np.float32)
        for expert in range(moe.moe_num_experts):
            put_mlp(f"{name}.mlp.experts.{expert}", moe.moe_intermediate_size)
        put_mlp(f"{name}.mlp.shared_experts", moe.shared_intermediate_size)
    put_norm("norm")
    return tensors


def write_untrained(folder: Path) -> None:
    """Write the three files into `folder`, which is made."""
    config = parse_config(CONFIG, "the untrained checkpoint's config")
    folder.mkdir()
    contents = {
        "config.json": (json.dumps(CONFIG, indent=2) + "\n").encode(),
        "model.safetensors": save(weights(config), {"format": "pt"}),
        "tokenizer.model": tokenizer_model(),
    }
    for name, data in contents.items():
        with write_atomic(folder / name) as file:
            file.write(data)
