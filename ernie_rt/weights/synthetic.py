"""Reproducible random weights, for measuring and testing a model without its file."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from ernie_rt.files import Progress
from ernie_rt.graph.types import Weight
from ernie_rt.weights.source import Array, computed, pieces

CHUNK: Final = 1 << 17
"""Elements drawn at once; the random words, table indices and results of a chunk stay in cache."""

WORDS: Final = 1 << 16
PER_COUNT: Final = 16
"""Random 16-bit words in a step of Philox's counter."""


def distribution(weight: Weight) -> tuple[float, float]:
    """Mean and standard deviation of a weight's synthetic values, by what it is; a backend may draw its own."""
    kind = weight.name.rsplit(".", 1)[-1]
    if kind == "norm":
        return 1.0, 0.05
    if kind == "correction_bias":
        return 0.0, 0.01
    if kind.endswith("bias"):
        return 0.0, 0.02
    if weight.name == "embed.weight":
        return 0.0, 1.0
    fan_in = weight.type.dims[-1]
    assert isinstance(fan_in, int), f"{weight.name} has a symbolic axis"
    return 0.0, 1 / math.sqrt(fan_in)


class Synthetic:
    """Normal weights that depend on the seed and each weight's name alone; rope tables are the real ones.

    An element takes one 16-bit word of a Philox stream keyed by seed and name, at its place in the whole weight, so a
    slice has the numbers it has in the whole; what the word stands for, one of 65,536 quantiles of the normal
    distribution if it is a number, the storage says.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        normal = NormalDist()
        self._quantiles = np.array([normal.inv_cdf((word + 0.5) / WORDS) for word in range(WORDS)])

    def fill(self, weight: Weight, part: str, out: Array, index: tuple[int, ...] = ()) -> None:
        if computed(weight, part, out, index):
            return
        table = weight.storage.synthesize(part, *distribution(weight), self._quantiles).astype(out.dtype)
        bits = table.view(f"u{table.itemsize}")  # NumPy gathers integers faster than bfloat16
        name = weight.name if part == "data" else f"{weight.name}.{part}"
        digest = hashlib.blake2b(f"{self._seed}:{name}".encode(), digest_size=16).digest()
        key = int.from_bytes(digest, "little")
        first = _offset(weight.parts[part].shape(), index)
        scratch = np.empty(CHUNK, bits.dtype)
        for block, start, count in pieces(out.shape, CHUNK):
            words = _words(key, first + start, count)
            values = np.take(bits, words, out=scratch[:count], mode="clip").view(out.dtype)
            target = out[block]
            np.copyto(target, values.reshape(target.shape))

    def fingerprint(self, progress: Progress | None = None) -> str:
        return f"synthetic {self._seed}"

    def close(self) -> None:
        pass


def _words(key: int, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Words `start` to `start + count` of the stream."""
    skip = start % PER_COUNT
    counts = -(-(skip + count) // PER_COUNT)
    raw = np.random.Philox(key=key, counter=start // PER_COUNT).random_raw(4 * counts)
    return raw.astype("<u8", copy=False).view("<u2")[skip : skip + count]


def _offset(shape: tuple[int, ...], index: tuple[int, ...]) -> int:
    """Elements before the slice at leading indices `index`, in C order."""
    return sum(i * math.prod(shape[axis + 1 :]) for axis, i in enumerate(index))
