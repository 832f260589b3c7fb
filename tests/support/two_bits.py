"""A storage that ernie-rt does not know, and how to quantise a model so: all of it, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ernie_rt.graph.types import Storage, TensorType, Weight
from ernie_rt.weights.quantize import Quantization

Array = np.ndarray[Any, Any]

BLOCK = 16
BOOK = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)


@dataclass(frozen=True, slots=True)
class TwoBits(Storage):
    """Two bits choose one of four numbers, `book`, which a float16 scale of each 16 along the last axis multiplies.

    Parts of `[.., K]`: `scale` f16 `[.., K / 16]`, `picks` u8 `[.., K / 4]`, of a byte the lowest bits the first.
    """

    kind = "two-bits"

    def __str__(self) -> str:
        return "two bits"

    def problem(self, type: TensorType, paired: bool = False) -> str | None:
        return f"its last axis is no multiple of {BLOCK}" if type.shape()[-1] % BLOCK else None

    def parts(self, type: TensorType, paired: bool = False) -> dict[str, TensorType]:
        *outer, columns = type.shape()
        return {
            "scale": TensorType("float16", (*outer, columns // BLOCK)),
            "picks": TensorType("uint8", (*outer, columns // 4)),
        }

    def quantize(self, rows: Array, *, search: bool, where: str) -> tuple[dict[str, Array], float, float]:
        blocks = rows.reshape(-1, BLOCK)
        scale = (np.abs(blocks).max(1, keepdims=True) / BOOK[-1]).astype(np.float16)
        exact = np.where(scale == 0, 1, scale).astype(np.float32)
        picks = np.abs(blocks[..., None] / exact[..., None] - BOOK).argmin(-1).astype(np.uint8)
        four = picks.reshape(*rows.shape[:-1], -1, 4)
        packed = four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6
        error = float(np.square(BOOK[picks] * scale.astype(np.float32) - blocks).sum(dtype=np.float64))
        parts = {"scale": scale.reshape(*rows.shape[:-1], -1), "picks": packed}
        return parts, error, float(np.square(rows).sum(dtype=np.float64))

    def dequantize(self, parts: Mapping[str, Array]) -> Array:
        picks = np.stack([parts["picks"] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1)
        numbers = BOOK[picks.reshape(-1, BLOCK)] * parts["scale"].astype(np.float32).reshape(-1, 1)
        return numbers.reshape(*parts["picks"].shape[:-1], -1)

    def synthesize(self, part: str, mean: float, std: float, quantiles: Array) -> Array:
        codes = np.arange(len(quantiles)) % 256
        return codes if part == "picks" else np.full(len(quantiles), std / BOOK.std())


class InTwoBits(Quantization):
    """Everything that is multiplied, where its size allows it."""

    def storage(self, weight: Weight) -> Storage:
        told, own = super().storage(weight), TwoBits()
        return own if told.packed and own.problem(weight.type) is None else weight.storage

    def plan(self, source: str) -> dict[str, object]:
        return super().plan(source) | {"weights": "two bits"}
