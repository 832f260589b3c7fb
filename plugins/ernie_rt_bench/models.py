"""Which model is measured: a checkpoint, or the shapes of a known model with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ernie_rt.errors import OptionError
from ernie_rt.graph.types import Weight
from ernie_rt.location import Located, locate
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.families import find
from ernie_rt.weights.folder import Put, write_quantized
from ernie_rt.weights.hub import is_here
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.synthetic import Synthetic


def find_model(ref: str, layers: int | None = None) -> Located:
    """The model: of a known name that has no checkpoint on this machine, or of whose `layers` the first few are wanted,
    the config alone."""
    family = find(ref)
    if family is not None and (layers is not None or not is_here(family)):
        return Located(family.config if layers is None else first_layers(family.config, layers))
    if layers is not None:
        raise OptionError("--layers is for known models, which are given random weights", found=ref)
    return locate(ref)


def first_layers(config: ModelConfig, count: int) -> ModelConfig:
    """A model of so many of its layers, as many of them with experts as there are among these."""
    if count > config.num_hidden_layers:
        raise OptionError("--layers is not possible", expected=f"1 to {config.num_hidden_layers}", found=count)
    moe = config.moe and replace(config.moe, moe_layer_end_index=min(config.moe.moe_layer_end_index, count - 1))
    return replace(config, num_hidden_layers=count, moe=moe)


def random_folder(work: Path, name: str, layers: int | None, how: Quantization) -> Located:
    """A known model, or its first layers, in a quantised folder of random weights in `work`, perhaps there before."""
    located = find_model(name, layers)
    folder = work / "-".join([name, *([] if layers is None else [str(layers)]), f"int{how.bits}", how.layout])
    if not folder.exists():
        write_random(folder, located.config, how)
    return Located(located.config, folder)


def write_random(out: Path, config: ModelConfig, how: Quantization) -> None:
    """A quantised folder whose codes and scales are drawn, not rounded: it takes no float32 weights."""
    source = Synthetic()

    def produce(weight: Weight, put: Put) -> None:
        for part, type in weight.parts.items():
            array = np.empty(type.shape(), type.dtype)
            source.fill(weight, part, array)
            put(array.ravel())

    write_quantized(out, None, how.weights(config), how.plan("synthetic"), produce)
