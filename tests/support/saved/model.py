"""A tiny ERNIE model made and saved as a variation says, and its logits in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from support.checkpoints import draw_weights
from support.judge import exact_logits
from support.saved.variation import FEWER, Variation

SCALED: Final = {"rope_type": "linear", "factor": 2.0}


def make_model(variation: Variation, tokens: int) -> Any:
    """The model of a variation whose tokenizer has so many tokens; its weights are drawn from the seed."""
    kind = "Ernie4_5_Moe" if variation.is_moe else "Ernie4_5"
    config = getattr(transformers, f"{kind}Config")(**variation.config)
    config._experts_implementation = "eager"  # the others have no float64
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    draw_weights(model, variation.seed, getattr(torch, variation.dtype), correction_std=0.05)
    with torch.random.fork_rng():
        torch.manual_seed(variation.seed)  # for the rows that resizing draws
        if variation.rows == "added":
            model.resize_token_embeddings(tokens)
        elif variation.rows == "padded":
            model.resize_token_embeddings(tokens, pad_to_multiple_of=64)
        elif variation.rows == "fewer":
            model.resize_token_embeddings(FEWER)
    if variation.head != "as configured":
        weight = model.lm_head.weight.detach().clone()
        if variation.head != "copied":
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(variation.seed))
            weight += weight.std() / 2 * noise.to(weight.dtype)
        model.lm_head.weight = torch.nn.Parameter(weight)
        model.config.tie_word_embeddings = variation.head != "untied"
    if variation.mixed:
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data = parameter.data.float()
    return model


def save_model(model: Any, variation: Variation, folder: Path) -> None:
    """Save it with its generation config and what else lies in such folders."""
    if variation.generation is not None:
        for name, value in variation.generation.items():
            setattr(model.generation_config, name, value)
    if variation.saved_before:
        other = "60KB" if variation.save["max_shard_size"] == "1GB" else "1GB"
        model.save_pretrained(folder, max_shard_size=other)
    (model.model if variation.bare else model).save_pretrained(folder, **variation.save)
    if variation.generation is None:
        (folder / "generation_config.json").unlink(missing_ok=True)
    for name in variation.extras:
        if name == "checkpoint-500":
            (folder / name).mkdir()
            (folder / name / "model.safetensors").write_bytes(b"another one")
        else:
            (folder / name).write_bytes(b"PK\x03\x04 not read")


def edit(folder: Path, variation: Variation) -> None:
    """Change the folder as other tools have left it."""
    for name in variation.edits:
        EDITS[name](folder)


def logits(model: Any, ids: Sequence[int]) -> NDArray[np.float64]:
    """The logits of a model, float64 throughout; its weights become float64."""
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    return exact_logits(model, ids)


def _torch_dtype(folder: Path) -> None:
    """As versions before 4.56 wrote it."""
    config = _read(folder / "config.json")
    config["torch_dtype"] = config.pop("dtype")
    _write(folder / "config.json", config)


def _byte_order_mark(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def _infinite_field(folder: Path) -> None:
    """As a trainer's own fields are, where nobody has measured anything yet."""
    _write(folder / "config.json", _read(folder / "config.json") | {"best_loss": float("inf"), "seed": 2**70})


def _total_size(folder: Path) -> None:
    """As merges leave it that count a tied head twice."""
    path = folder / "model.safetensors.index.json"
    if path.exists():
        index = _read(path)
        index["metadata"]["total_size"] += 4096
        _write(path, index)


def _class_prefix(folder: Path) -> None:
    config = _read(folder / "config.json")
    config["architectures"] = [f"FSDP{name}" for name in config["architectures"]]
    _write(folder / "config.json", config)


def _scaled_rope(folder: Path) -> None:
    config = _read(folder / "config.json")
    if "rope_parameters" in config:
        config["rope_parameters"] |= SCALED
    else:
        config["rope_scaling"] = SCALED
    _write(folder / "config.json", config)


EDITS: Final[dict[str, Callable[[Path], None]]] = {
    "torch_dtype": _torch_dtype,
    "byte order mark": _byte_order_mark,
    "infinite field": _infinite_field,
    "total_size": _total_size,
    "class prefix": _class_prefix,
    "scaled rope": _scaled_rope,
}


def _read(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    return fields


def _write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2))
