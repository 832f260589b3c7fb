"""Small random vision-language checkpoints that transformers writes, and their twins in the other three layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMAGE = 182
"""The first id of vision: the placeholder of a part of a picture."""
VIDEO = 194
"""That of a video, in transformers' spelling."""
TEXT: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": [24, 8],
    "moe_k": 3,
    "moe_num_experts": 8,
    "moe_num_shared_experts": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [3, 3, 2]},
}
MARKERS = {
    "image_start_token_id": 190,
    "image_end_token_id": 191,
    "video_start_token_id": 192,
    "video_end_token_id": 193,
}
TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 128,
    "patch_size": 14,
    "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
}

NESTED = {
    "model_type": "ernie4_5_vl_moe", "image_token_id": IMAGE, "video_token_id": VIDEO, "tie_word_embeddings": True,
    "text_config": TEXT | {"mlp_layer_types": ["dense", "sparse", "sparse"]}, "vision_config": TOWER, **MARKERS,
}  # fmt: skip
FLAT = {
    **TEXT, **MARKERS, "model_type": "ernie4_5_moe_vl", "moe_num_experts": [8, 8], "im_patch_id": IMAGE,
    "vision_config": TOWER, "moe_layer_start_index": [1, 1], "moe_layer_end_index": [4, 3], "pixel_hidden_size": 32,
    "freq_allocation": 2,
}  # fmt: skip
"""A config of these in each of the two spellings."""


def make_model(
    *, tied: bool, text: Mapping[str, Any] | None = None, tower: Mapping[str, Any] | None = None, seed: int = 3
) -> Any:
    """A model of transformers, its norms, biases and correction biases random as well; some fields of its config may
    be others."""
    import torch
    from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration

    config = Ernie4_5_VLMoeConfig(
        text_config=TEXT | dict(text or {}), vision_config=TOWER | dict(tower or {}), tie_word_embeddings=tied,
        image_token_id=IMAGE, video_token_id=VIDEO, **MARKERS,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = Ernie4_5_VLMoeForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("e_score_correction_bias"):
                parameter.copy_(0.05 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (not name.endswith("bias")))
            else:
                parameter.copy_(noise * 0.08 if "embed_tokens" in name else noise / parameter.shape[-1] ** 0.5)
    return model


def write_published_twin(source: Path, folder: Path) -> Path:
    """The folder as the `-PT` repositories have it: a flat config, the tower without `model.`, a head even if tied."""
    tensors, config = _read(source)
    tensors = {re.sub(r"^model\.(?=vision_model\.)", "", name): tensor for name, tensor in tensors.items()}
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].clone())
    return _write(folder, tensors, _flat(config) | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})


def write_paddle_twin(source: Path, folder: Path) -> Path:
    """The folder as the `-Paddle` repositories have it: linears `[in, out]`, q, k and v in one, gate and up as well."""
    import torch

    tensors, config = _read(source)
    out: dict[str, Any] = {}
    while tensors:
        name = next(iter(tensors))
        fused = re.fullmatch(r"(model\.layers\..*\.)(?:(?:q|k|v)_proj|(gate|up)_proj)\.weight", name)
        if fused:
            stem, is_mlp = fused.groups()
            parts, target = (("gate", "up"), "up_gate_proj") if is_mlp else (("q", "k", "v"), "qkv_proj")
            tensor = torch.cat([tensors.pop(f"{stem}{part}_proj.weight") for part in parts])
            name = f"{stem}{target}.weight"
        else:
            tensor = tensors.pop(name)
        if (
            re.search(r"(_proj|lm_head|patch_embed\.proj|blocks\..*|linear\.\d|resampler_model\.mlp)\.weight$", name)
            and tensor.ndim == 2
        ):
            tensor = tensor.T.contiguous()
        name = re.sub(r"^model\.(?=vision_model\.)", "", name)
        out[re.sub(r"^model\.", "ernie.", name)] = tensor
    return _write(folder, out, _flat(config))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    text, tower = dict(config["text_config"]), config["vision_config"]
    rope = text.pop("rope_parameters")
    pools = {name: [text.pop(name)] * 2 for name in ("moe_num_experts",)}
    kinds = text.pop("mlp_layer_types", None)
    layers = text["num_hidden_layers"]
    sparse = [i for i in range(layers) if (i > 0 if kinds is None else kinds[i] == "sparse")]
    end = [sparse[-1]] * 2 if sparse[-1] < layers - 1 else [layers + 1, layers]  # Baidu counts further than there are
    flat = {name: value for name, value in text.items() if name not in ("model_type", "dtype")}
    return flat | pools | {name: config[name] for name in MARKERS} | {
        "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
        "model_type": "ernie4_5_moe_vl",
        "torch_dtype": "float32",
        "tie_word_embeddings": config["tie_word_embeddings"],
        "moe_layer_start_index": [sparse[0]] * 2,
        "moe_layer_end_index": end,
        "im_patch_id": config["image_token_id"],
        "rope_3d": True,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "default", "mrope_section": rope["mrope_section"]},
        "vision_config": {
            "depth": tower["depth"],
            "embed_dim": tower["hidden_size"],
            "num_heads": tower["num_heads"],
            "mlp_ratio": tower["intermediate_size"] // tower["hidden_size"],
            "patch_size": tower["patch_size"],
            "hidden_act": "quick_gelu",
        },
    }  # fmt: skip


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.torch import load_file

    tensors = {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
    return tensors, json.loads((folder / "config.json").read_text())


def _write(folder: Path, tensors: dict[str, Any], config: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder
