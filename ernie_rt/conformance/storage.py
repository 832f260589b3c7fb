"""Weights of any case or checkpoint, quantised on the way: what `--storage` puts a backend to."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from ernie_rt.errors import OptionError
from ernie_rt.graph.types import Blocks, Plain, Storage, Weight, blocks_of
from ernie_rt.weights.blocks import dequantize, quantize, to_tiles
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.quantized import row_shape
from ernie_rt.weights.source import Array, WeightSource, check_request

SPELLING: Final = "plain, or int4 or int8, perhaps with /BLOCK (32, 64, 128) and /tiled, such as int4/64/tiled"


def parse_storage(text: str) -> Quantization | None:
    """Read what `--storage` says; None for plain, OptionError for what there is not."""
    match = re.fullmatch(r"int([48])(?:/(32|64|128))?(/tiled)?", text, re.ASCII)
    if match is None:
        if text == "plain":
            return None
        raise OptionError(f"no storage {text[:40]!r}", expected=SPELLING)
    storage = blocks_of(int(match[1]), int(match[2] or 32), "tiled" if match[3] else "raw")
    return Quantization(storage.bits, storage.block, storage.layout)


def planned(how: Quantization | None, weight: Weight) -> Storage:
    """How a weight is to be stored: as `ernie-rt quantize` does, but as it is where its sizes do not allow that."""
    storage = weight.storage if how is None else how.storage(weight)
    if isinstance(storage, Blocks) and storage.problem(weight.type) is not None:
        return weight.storage
    return storage


def numbers_of(source: WeightSource, weight: Weight, bindings: Mapping[str, int]) -> Array:
    """The numbers of a weight in float64, however it is stored."""
    if isinstance(weight.storage, Blocks):
        weight = replace(weight, storage=Plain(weight.type.dtype))
    out = np.empty(weight.type.shape(bindings))
    source.fill(weight, "data", out)
    return out


class Quantized:
    """The weights of another source as a plan stores them: each is quantised once, when it is first asked for.

    A weight is filled part by part, or, where the graph says Plain, with the very numbers that its parts stand for.
    """

    def __init__(self, open: Callable[[], WeightSource], how: Quantization, weights: Iterable[Weight]) -> None:
        """`weights` are as the source knows them."""
        self._open = open
        self._how = how
        self._weights = {weight.name: weight for weight in weights}
        self._lock = threading.Lock()
        self._made: dict[str, dict[str, Array]] = {}

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        check_request(weight, part, out, index)
        known = self._weights[weight.name]
        storage = planned(self._how, known)
        if not isinstance(storage, Blocks):
            self._fill(weight, part, out, index)
            return
        with self._lock:
            if weight.name not in self._made:
                self._made[weight.name] = self._parts(known, storage)
        assert weight.storage == storage or not isinstance(weight.storage, Blocks)
        np.copyto(out, self._made[weight.name][part][index], casting="unsafe")

    def close(self) -> None:
        pass

    def _fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        source = self._open()
        try:
            source.fill(weight, part, out, index)
        finally:
            source.close()

    def _parts(self, weight: Weight, storage: Blocks) -> dict[str, Array]:
        """Codes and scales as they are stored and, as `data`, the numbers."""
        shape = weight.type.shape()
        values = np.empty(shape, np.float32)
        self._fill(weight, "data", values)
        codes, scales, _, _ = quantize(values.reshape(-1, shape[-1]), storage, search=True, where=weight.name)
        codes, scales = codes.reshape(*shape[:-1], -1), scales.reshape(*shape[:-1], -1)
        numbers = dequantize(codes, scales, replace(storage, layout="raw"))
        if storage.layout == "tiled":
            experts = list(np.ndindex(*shape[: len(shape) - len(row_shape(weight)) - 1]))
            tiles = [to_tiles(codes[i], scales[i], storage) for i in experts]
            codes, scales = (np.stack(each) for each in zip(*tiles, strict=True))
        stored = storage.parts(weight.type)
        return {
            "codes": codes.reshape(stored["codes"].shape()),
            "scales": scales.reshape(stored["scales"].shape()),
            "data": numbers,
        }
