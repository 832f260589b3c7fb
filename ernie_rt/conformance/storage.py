"""Weights of any case or checkpoint, quantised on the way: what `--storage` puts a backend to."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal, cast

import numpy as np

from ernie_rt.errors import OptionError
from ernie_rt.graph.types import Storage, TensorType, Weight
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.source import Array, WeightSource, computed

EXPERTS: Final = (".experts.gate_up", ".experts.down")
"""What the names of experts' weights end in."""

SPELLING: Final = "plain, or int4 or int8, perhaps with /BLOCK (32, 64, 128) and /tiled, such as int4/64/tiled"


def parse_storage(text: str) -> Quantization | None:
    """Read what `--storage` says; None for plain, OptionError for what there is not."""
    match = re.fullmatch(r"int([48])(?:/(32|64|128))?(/tiled)?", text, re.ASCII)
    if match is None:
        if text == "plain":
            return None
        raise OptionError(f"no storage {text[:40]!r}", expected=SPELLING)
    block = cast(Literal[32, 64, 128], int(match[2] or 32))
    return Quantization(4 if match[1] == "4" else 8, block, "tiled" if match[3] else "raw")


def planned(how: Quantization | None, weight: Weight) -> Storage:
    """How a weight is to be stored: as `ernie-rt quantize` does, but as it is where its sizes do not allow that.

    The two matrices of experts are stored alike, as they are in every folder that it writes.
    """
    storage = weight.storage if how is None else how.storage(weight)
    types = [(weight.type, weight.paired)]
    if weight.name.endswith(EXPERTS):
        experts, rows, *_, columns = weight.type.dims
        types.append((TensorType(weight.type.dtype, (experts, columns, rows)), False))
    return storage if all(storage.problem(*each) is None for each in types) else weight.storage


def numbers_of(source: WeightSource, weight: Weight, bindings: Mapping[str, int]) -> Array:
    """The numbers of a weight in float64, however it is stored."""
    out = np.empty(weight.type.shape(bindings))
    source.fill(weight.plain, "data", out)
    return out


class Quantized:
    """The weights of another source as a plan stores them: each is quantised once, when it is first asked for.

    A weight is filled part by part, or, where the graph does not say it packed, with the very numbers that its parts
    stand for.
    """

    def __init__(self, open: Callable[[], WeightSource], how: Quantization, weights: Iterable[Weight]) -> None:
        """`weights` are as the source knows them."""
        self._open = open
        self._how = how
        self._weights = {weight.name: weight for weight in weights}
        self._lock = threading.Lock()
        self._made: dict[str, dict[str, Array]] = {}

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if computed(weight, part, out, index):
            return
        known = self._weights[weight.name]
        storage = planned(self._how, known)
        if not storage.packed:
            self._fill(weight, part, out, index)
            return
        with self._lock:
            if weight.name not in self._made:
                self._made[weight.name] = self._parts(replace(known, storage=storage))
        assert weight.storage == storage or not weight.storage.packed
        np.copyto(out, self._made[weight.name][part][index], casting="unsafe")

    def close(self) -> None:
        pass

    def _fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        source = self._open()
        try:
            source.fill(weight, part, out, index)
        finally:
            source.close()

    def _parts(self, weight: Weight) -> dict[str, Array]:
        """The parts as they are stored and, as `data`, the numbers."""
        storage, values = weight.storage, np.empty(weight.type.shape(), np.float32)
        self._fill(weight.plain, "data", values)
        rows, _, _ = storage.quantize(values.reshape(-1, *weight.row), search=True, where=weight.name)
        numbers: Array = storage.dequantize(rows).reshape(values.shape)
        packed, stored = storage.pack(rows), weight.parts
        return {name: part.reshape(stored[name].shape()) for name, part in packed.items()} | {"data": numbers}
