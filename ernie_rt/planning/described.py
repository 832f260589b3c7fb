"""A model to plan, by what people call it: its config and how its weights are stored, from headers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ernie_rt.errors import ErnieRtError
from ernie_rt.graph.types import Storage
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.modeling.families import FAMILIES, find
from ernie_rt.modeling.vision_language import PreprocessorConfig, read_preprocessor
from ernie_rt.weights.checkpoint import has_weights
from ernie_rt.weights.hub import model_name, resolve
from ernie_rt.weights.opening import open_weights


@dataclass(frozen=True, slots=True)
class Described:
    """A model without its weights. `stored` says how they are stored, None where there are none; `pixels` how large a
    picture may be."""

    name: str
    config: ModelConfig
    stored: Mapping[str, Storage] | None = None
    pixels: PreprocessorConfig = field(default_factory=PreprocessorConfig)


def describe(ref: str) -> Described:
    """Describe a folder, a known model, or a hub id. No weight is read, and nothing is downloaded.

    A folder has a config.json, weights whose headers are read, or both; without a config.json the weights must be those
    of a known model. Raises what is wrong with a folder, and ModelNotFoundError.
    """
    try:
        folder = Path(ref).expanduser()
        is_folder = bool(ref) and folder.is_dir()
    except (OSError, RuntimeError):  # a name too long for a path; a home folder of nobody
        is_folder = False
    if not is_folder:
        if (family := find(ref)) is not None:
            return Described(family.name, family.config)
        folder = resolve(ref, fetch=False)
    elif not os.path.lexists(folder / "config.json"):
        return _by_headers(folder)
    config = read_config(folder)
    pixels = read_preprocessor(folder) if config.sees else PreprocessorConfig()
    return Described(ref, config, _stored(folder, config) if has_weights(folder) else None, pixels)


def _by_headers(folder: Path) -> Described:
    """By the shapes of its tensors, which one known model alone may have."""
    for config in {id(family.config): family.config for family in FAMILIES}.values():
        try:
            return Described(model_name(folder), config, _stored(folder, config))
        except ErnieRtError:
            continue
    config = read_config(resolve(str(folder), fetch=False))  # one of which says what the folder is
    return Described(str(folder), config)


def _stored(folder: Path, config: ModelConfig) -> Mapping[str, Storage]:
    source = open_weights(folder, config)
    try:
        return dict(source.storages)
    finally:
        source.close()
