"""A trained model as a folder that any ERNIE 4.5 runtime loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save

from demo.model import CONFIG, Ernie, demo_config, load_tensors, stored_tensors
from ernie_rt.modeling.config import read_config
from ernie_rt.writing import write_atomic

MAX_BYTES: Final = 16_000_000
"""What the files of the folder may hold together."""
MAX_PARAMETERS: Final = 7_500_000
FILES: Final = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
CARD: Final = Path(__file__).with_name("card.md")
GENERATION: Final = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False}


def export(model: Ernie, folder: Path, changes: dict[str, object] | None = None) -> None:
    """Write the model card, configs and weights; `changes` are the model's own to CONFIG."""
    fields = CONFIG | (changes or {})
    assert demo_config(**(changes or {})) == model.config
    contents = {
        "README.md": CARD.read_bytes(),
        "config.json": (json.dumps(fields, indent=2) + "\n").encode(),
        "generation_config.json": (json.dumps(GENERATION, indent=2) + "\n").encode(),
        "model.safetensors": save(stored_tensors(model), {"format": "pt"}),
    }
    for name, data in contents.items():
        with write_atomic(folder / name) as file:
            file.write(data)


def load(folder: Path) -> Ernie:
    """The model of an exported folder, MTP layer and all, in float32 with the stored weights."""
    model = Ernie(read_config(folder))
    load_tensors(model, load_file(folder / "model.safetensors"))
    return model.eval()
