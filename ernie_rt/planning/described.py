"""A model to plan, by what people call it: its config and how its weights are stored, from headers alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ernie_rt.errors import ErnieRtError
from ernie_rt.files import member
from ernie_rt.graph.types import Storage
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.modeling.families import FAMILIES, find
from ernie_rt.modeling.vision_language import PreprocessorConfig, read_preprocessor
from ernie_rt.weights.checkpoint import Checkpoint, has_weights
from ernie_rt.weights.hub import model_name, resolve
from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt.weights.opening import open_weights
from ernie_rt.weights.quantized import QuantizedSource
from ernie_rt.weights.source import CheckpointSource, StoredSource


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
    """By the shapes of its tensors, which one known model alone may have: they are read once, whatever they are."""
    fit: Callable[..., StoredSource]
    with contextlib.suppress(ErnieRtError), contextlib.ExitStack() as cleanup:
        if (folder / MANIFEST).exists():
            fit = partial(QuantizedSource, folder, manifest=read_manifest(member(folder, MANIFEST)))
        else:
            fit = partial(CheckpointSource, cleanup.enter_context(Checkpoint.open(folder)))
        for config in {id(family.config): family.config for family in FAMILIES}.values():
            with contextlib.suppress(ErnieRtError), contextlib.closing(fit(config=config)) as source:
                return Described(model_name(folder), config, dict(source.storages))
    config = read_config(resolve(str(folder), fetch=False))  # one of which says what the folder is
    return Described(str(folder), config)


def _stored(folder: Path, config: ModelConfig) -> Mapping[str, Storage]:
    source = open_weights(folder, config)
    try:
        return dict(source.storages)
    finally:
        source.close()
