"""A demo model made very small, and not taught anything: its correction biases are random, so that they matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from demo.export import export
from demo.model import Ernie, demo_config, experts_of

SMALL: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "moe_intermediate_size": 16,
}


def write_untaught_demo(folder: Path, tokenizer: Path) -> Path:
    """`tokenizer` is a folder with the files of the demo's, which are copied."""
    shutil.copytree(tokenizer, folder)
    model = Ernie(demo_config(**SMALL), seed=1)
    for experts in experts_of(model):
        experts.correction_bias.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    export(model, folder, SMALL)
    return folder
