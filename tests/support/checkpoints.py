"""Small random checkpoints that transformers writes, and their twins: packed, `-PT` as published, and `-Paddle`."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

SHORT_PROMPTS = (3, 200, 1500)
LONG_PROMPT = 8040


@dataclass(frozen=True, slots=True)
class Spec:
    """What one checkpoint is made of; `seed` is the first one tried, `prompts` are lengths in tokens.

    `extra` marks one whose features others cover: it is left to the long tests.
    """

    name: str
    config: Mapping[str, Any]
    stored: Literal["bfloat16", "float32"]
    seed: int = 0
    correction_std: float = 0.0
    max_shard_size: str = "1GB"
    prompts: tuple[int, ...] = SHORT_PROMPTS
    extra: bool = False

    @property
    def is_moe(self) -> bool:
        return "moe_k" in self.config


BASE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192 + 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "tie_word_embeddings": True,
}
DENSE = BASE | {"head_dim": 16}
MOE = BASE | {
    "moe_num_experts": 16,
    "moe_k": 4,
    "moe_intermediate_size": 32,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
}
TINY = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TINY_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
THETA_10000 = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}

SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("dense-tied", DENSE, "bfloat16"),
        Spec("dense-untied", DENSE | {"tie_word_embeddings": False, "num_key_value_heads": 4}, "float32", extra=True),
        Spec("dense-head-dim", DENSE | THETA_10000 | {"head_dim": 32, "vocab_size": 131}, "bfloat16", seed=1),
        Spec(
            "dense-groups-5",
            DENSE | {"hidden_size": 80, "num_attention_heads": 10, "num_hidden_layers": 2, "vocab_size": 512},
            "float32",
        ),
        Spec(
            "dense-groups-8",
            DENSE | {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 8},
            "bfloat16",
            max_shard_size="30KB",
        ),
        Spec(
            "dense-bias", DENSE | {"use_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 4}, "float32"
        ),
        Spec("moe", MOE, "bfloat16", correction_std=0.03),
        Spec(
            "moe-leading-dense",
            MOE
            | {
                "num_hidden_layers": 5,
                "moe_layer_start_index": 3,
                "moe_num_shared_experts": 0,
                "tie_word_embeddings": False,
            },
            "bfloat16",
            correction_std=0.03,
        ),
        Spec("moe-interval", MOE | {"num_hidden_layers": 5, "moe_layer_interval": 2}, "float32", correction_std=0.03),
        Spec(
            "moe-end",
            MOE | {"num_hidden_layers": 4, "moe_layer_end_index": 2, "moe_num_shared_experts": 1},
            "bfloat16",
            seed=2,
            correction_std=0.03,
        ),
        Spec(
            "moe-bias",
            MOE | {"use_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 4},
            "float32",
            correction_std=0.03,
        ),
        Spec(
            "moe-sharded",
            MOE | {"moe_num_experts": 12},
            "float32",
            correction_std=0.04,
            max_shard_size="40KB",
            extra=True,
        ),
        Spec(
            "moe-many-experts",
            MOE
            | {
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "moe_num_experts": 64,
                "moe_k": 8,
                "moe_intermediate_size": 16,
                "num_hidden_layers": 2,
            },
            "bfloat16",
            seed=10,
            correction_std=0.004,
        ),
        Spec("dense-long", DENSE | TINY | TINY_HEADS, "float32", seed=1, prompts=(3, LONG_PROMPT), extra=True),
        Spec(
            "moe-long",
            MOE | TINY | TINY_HEADS | {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 16},
            "bfloat16",
            seed=1,
            correction_std=0.05,
            prompts=(3, LONG_PROMPT),
        ),
    )
}

NAMES = [pytest.param(name, marks=[pytest.mark.long] if spec.extra else []) for name, spec in SPECS.items()]


def write_checkpoint(spec: Spec, folder: Path, seed: int) -> Path:
    """Write `spec` with weights drawn from `seed` by `save_pretrained`, and return the folder (emptied first)."""
    import torch
    from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM, Ernie4_5Config, Ernie4_5ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    model: Any
    if spec.is_moe:
        model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(**spec.config))
    else:
        model = Ernie4_5ForCausalLM(Ernie4_5Config(**spec.config))
    draw_weights(model, seed, getattr(torch, spec.stored), spec.correction_std)
    model.save_pretrained(folder, max_shard_size=spec.max_shard_size)
    return folder


def draw_weights(model: Any, seed: int, stored: Any, correction_std: float) -> None:
    """Draw a transformers model's weights from `seed`, of dtype `stored`; its config says whether embeddings are tied.

    Standard deviations are chosen for logits with an rms of about 2 and for attention scores, router logits and a
    residual stream of about 1: every part of the model moves the output, and none magnifies the rounding of float32
    much. As in published files, the router stays float32.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        mean, std = _distribution(name, model.config, correction_std, fan_in=parameter.shape[-1])
        router = "gate.weight" in name or "moe_statics" in name
        parameter.data = (mean + std * noise).to(torch.float32 if router else stored)


def _distribution(name: str, config: Any, correction_std: float, fan_in: int) -> tuple[float, float]:
    if name == "model.norm.weight" and config.tie_word_embeddings:
        return 0.0, 2.0 / math.sqrt(config.hidden_size)  # of both signs: else every token predicts itself
    if "norm" in name:
        return 1.0, 0.2
    if "moe_statics" in name:
        return 0.0, correction_std
    if name.endswith("bias"):
        return 0.0, 0.2
    if "embed_tokens" in name:
        return 0.0, 1.0
    gain = 1.0
    if "lm_head" in name:
        gain = 2.0
    elif "o_proj" in name or "down_proj" in name:
        gain = 1.0 / math.sqrt(config.num_hidden_layers)
    return 0.0, gain / math.sqrt(fan_in)


def write_packed_twin(source: Path, folder: Path) -> Path:
    """Have transformers rewrite a MoE folder with the experts of a layer packed in two tensors, as it holds them."""
    import torch
    from transformers import Ernie4_5_MoeForCausalLM

    model: Any = Ernie4_5_MoeForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.save_pretrained(folder, save_original_format=False)
    return folder


def write_published_twin(source: Path, folder: Path) -> Path:
    """Copy a `-PT` folder in the published form: older config spelling, MTP tensors, a redundant head when tied."""
    import torch

    tensors, config = _read(source)
    dtype, H, I = tensors["model.norm.weight"].dtype, config["hidden_size"], config["intermediate_size"]  # noqa: E741
    layer = {k.split("layers.0.")[1]: v for k, v in tensors.items() if ".layers.0.self_attn." in k}
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.items()}
    shapes |= {"mlp.gate_proj.weight": (I, H), "mlp.up_proj.weight": (I, H), "mlp.down_proj.weight": (H, I)}
    shapes |= {"input_layernorm.weight": (H,), "post_attention_layernorm.weight": (H,)}
    mtp: dict[str, tuple[int, ...]] = {f"model.mtp_block.0.{name}": shape for name, shape in shapes.items()}
    mtp |= {"model.mtp_emb_norm.0.weight": (H,), "model.mtp_hidden_norm.0.weight": (H,)}
    mtp |= {"model.mtp_linear_proj.0.weight": (H, 2 * H)}
    generator = torch.Generator().manual_seed(7)
    tensors |= {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in mtp.items()}
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].clone())
    auto_map = {"AutoModelForCausalLM": "modeling_ernie4_5_moe.Ernie4_5_MoeForCausalLM"}
    return _write(folder, tensors, _published(config) | {"num_nextn_predict_layers": 1, "auto_map": auto_map})


def write_paddle_twin(source: Path, folder: Path, *, bfloat16_as: Literal["BF16", "U16"] = "BF16") -> Path:
    """Rewrite a `-PT` folder in the `-Paddle` layout: `ernie.` names, `[in, out]` linears, fused qkv and gate|up.

    `bfloat16_as="U16"` stores bfloat16 as NumPy does, which has no such dtype: bit patterns in uint16.
    """
    import torch

    tensors, config = _read(source)
    out: dict[str, Any] = {}
    while tensors:
        name = next(iter(tensors))
        fused = re.fullmatch(r"(.*\.)(?:(?:q|k|v)_proj|(gate|up)_proj)\.(weight|bias)", name)
        if fused:
            stem, is_mlp, kind = fused.groups()
            parts, target = (("gate", "up"), "up_gate_proj") if is_mlp else (("q", "k", "v"), "qkv_proj")
            tensor = torch.cat([tensors.pop(f"{stem}{part}_proj.{kind}") for part in parts])
            name = f"{stem}{target}.{kind}"
        else:
            tensor = tensors.pop(name)
        if re.search(r"(_proj|mlp\.gate|lm_head)\.weight$", name):
            tensor = tensor.T.contiguous()
        if bfloat16_as == "U16" and tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.uint16)
        out[re.sub(r"^model\.", "ernie.", name)] = tensor
    return _write(folder, out, _published(config) | {"compression_ratio": 1.0}, format="np")


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.torch import load_file

    tensors = {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
    return tensors, json.loads((folder / "config.json").read_text())


def _write(folder: Path, tensors: dict[str, Any], config: dict[str, Any], format: str = "pt") -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": format})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it was spelt before transformers 5; a last MoE layer that is the model's last is left out."""
    old = {name: value for name, value in config.items() if name not in ("rope_parameters", "dtype")}
    old |= {"rope_theta": config["rope_parameters"]["rope_theta"], "torch_dtype": config["dtype"]}
    if config["model_type"] == "ernie4_5_moe":
        old |= {"moe_use_aux_free": True, "moe_gate": "topk", "moe_capacity": [config["moe_num_experts"]] * 3}
        if config["moe_layer_end_index"] == config["num_hidden_layers"] - 1:
            del old["moe_layer_end_index"]
    return old
