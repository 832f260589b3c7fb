"""A trained model as a folder that any runtime of ERNIE 4.5-VL loads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from demo.export import GENERATION
from demo_vl.batches import MAX_PIXELS, MIN_PIXELS
from demo_vl.model import CONFIG, ErnieVL, TwoPools, demo_config
from ernie_rt.modeling.config import read_config
from ernie_rt.vision.patches import MEAN, STD
from ernie_rt.writing import write_atomic

MAX_BYTES: Final = 8_000_000
"""What the files of the folder may hold together."""
FILES: Final = (
    "README.md",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
CARD: Final = Path(__file__).with_name("card.md")
PREPROCESSOR: Final = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "rescale_factor": 1 / 255,
    "resample": 3,
    "patch_size": 14,
    "merge_size": 2,
    "temporal_conv_size": 2,
    "min_pixels": MIN_PIXELS,
    "max_pixels": MAX_PIXELS,
}


def export(model: ErnieVL, folder: Path, changes: dict[str, object] | None = None) -> None:
    """Write the model card, configs and weights; `changes` are the model's own to CONFIG."""
    assert demo_config(**(changes or {})) == model.config
    texts = {
        "config.json": CONFIG | (changes or {}),
        "generation_config.json": GENERATION,
        "preprocessor_config.json": PREPROCESSOR,
    }
    contents = {
        "README.md": CARD.read_bytes(),
        **{name: (json.dumps(fields, indent=2) + "\n").encode() for name, fields in texts.items()},
        "model.safetensors": save(stored_tensors(model), {"format": "pt"}),
    }
    for name, data in contents.items():
        with write_atomic(folder / name) as file:
            file.write(data)


def load(folder: Path) -> ErnieVL:
    """The model of an exported folder, in float32 with the stored weights."""
    model = ErnieVL(read_config(folder))
    stored = load_file(folder / "model.safetensors")
    for name, parts in _parts(model):
        for part, value in zip(parts, stored[name] if len(parts) > 1 else [stored[name]], strict=True):
            part.copy_(value)
    return model.eval()


def stored_tensors(model: ErnieVL) -> dict[str, Tensor]:
    """The model under the tensor names of a -PT release: bfloat16, the routers float32."""
    router = ("mlp.gate.weight", "mlp.gate.weight_1", "e_score_correction_bias")
    return {
        name: (parts[0] if len(parts) == 1 else torch.stack(parts))
        .to("cpu", torch.float32 if name.endswith(router) else torch.bfloat16)
        .contiguous()
        for name, parts in _parts(model)
    }


def _parts(model: ErnieVL) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The stored tensors by name: each is a part of the model, or several one above the other."""
    for index, layer in enumerate(model.layers):
        if isinstance(layer.mlp, TwoPools):
            at = f"model.layers.{index}.mlp"
            pools = layer.mlp.text, layer.mlp.vision
            yield f"{at}.moe_statics.e_score_correction_bias", tuple(pool.correction_bias for pool in pools)
            for number, pool in enumerate(pools):
                yield f"{at}.gate.weight{'_1' * number}", (pool.gate.weight.data.T,)
                experts = zip(pool.gate_up.data, pool.down.data, strict=True)
                for expert, (gate_up, down) in enumerate(experts, number * len(pool.down)):
                    gate, up = gate_up.chunk(2)
                    for name, part in (("gate", gate), ("up", up), ("down", down)):
                        yield f"{at}.experts.{expert}.{name}_proj.weight", (part,)
    for name, parameter in model.named_parameters():
        if not name.startswith(("says.", "reads.")) and not re.search(r"\.mlp\.(text|vision)\.", name):
            stored = name.replace("embed.weight", "embed_tokens.weight")
            yield stored if name.startswith("vision_model.") else f"model.{stored}", (parameter.data,)
