"""Quantised models kept on disk, so that a checkpoint is quantised once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from ernie_rt.errors import OptionError, WriteError
from ernie_rt.files import Progress
from ernie_rt.model.config import ModelConfig
from ernie_rt.weights.manifest import file_bytes, shard_weights
from ernie_rt.weights.opening import open_weights
from ernie_rt.weights.quantize import Quantization, quantize_model
from ernie_rt.weights.quantized import QuantizedSource

TRIAL: Final = 1 << 18
"""Numbers that are quantised to see how fast that goes."""


def cache_folder() -> Path:
    """Where quantised models are kept: `XDG_CACHE_HOME`, or ~/.cache, then ernie-rt/quantized."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ernie-rt" / "quantized"


def quantized_folder(
    folder: Path,
    config: ModelConfig,
    how: Quantization,
    *,
    threads: int = 1,
    announce: Callable[[int, float], None] | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of a checkpoint's quantised twin in the cache, made when it is missing.

    `announce` is told, before it is made, the bytes that it will take and about how many seconds. Raises what
    `quantize_model` does; OptionError for a folder that is quantised otherwise.
    """
    source = open_weights(folder, config)
    try:
        if isinstance(source, QuantizedSource):
            if source.manifest.plan.get("weights") != f"int{how.bits}":
                raise OptionError("the model is quantised otherwise", where=str(folder), hint="Leave --weights out")
            return folder
        plan = how.plan(source.fingerprint())
    finally:
        source.close()
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    twin = cache_folder() / digest[:32]
    if not twin.exists():
        if announce is not None:
            weights = how.weights(config)
            nbytes = sum(file_bytes(group) for group in shard_weights(weights).values())
            numbers = sum(weight.type.elements() for weight in weights)
            announce(nbytes, numbers * _seconds_a_number(how) / threads)
        try:
            twin.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError("the cache cannot be written", where=str(twin.parent), found=error.strerror) from error
        quantize_model(folder, config, twin, how, threads=threads, progress=progress)
    return twin


def _seconds_a_number(how: Quantization) -> float:
    values = np.random.default_rng(0).standard_normal((TRIAL // 1024, 1024), np.float32)
    began = time.perf_counter()
    how.linears.quantize(values, search=how.clip_search, where="a trial")
    return (time.perf_counter() - began) / TRIAL
