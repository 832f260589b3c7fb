"""Prompts of micro-models that see: random ids, pictures and videos, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ernie_rt.conformance.streams import words
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.runtime.inputs import PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.vision.grid import TOKEN
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions

Part = int | Mapping[str, Sequence[int]]
"""So many ids; or {"image": [h, w]} or {"video": [frames, h, w]}, heights and widths in tokens."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A prompt: ids, placeholders among them, and the items that these stand for, each with its place."""

    ids: tuple[int, ...]
    placed: tuple[tuple[int, Item], ...] = ()

    @property
    def items(self) -> tuple[PlacedItem, ...]:
        return tuple(PlacedItem(start, item) for start, item in self.placed)

    @property
    def positions(self) -> PerToken:
        """Of the prompt, and of what follows."""
        return PerToken(rope_positions(len(self.ids), [(start, item.merged) for start, item in self.placed]), "count")

    @classmethod
    def of(cls, key: str, parts: Sequence[Part], config: ModelConfig) -> Shown:
        """Ids of the stream `key`, and pixels of the streams `key/item.0`, `key/item.1`, …, a byte each."""
        assert config.sees is not None
        text = words(key, sum(part for part in parts if isinstance(part, int))) % np.uint32(config.vocab_size)
        ids: list[int] = []
        placed: list[tuple[int, Item]] = []
        taken = 0
        for part in parts:
            if isinstance(part, int):
                ids += text[taken : taken + part].tolist()
                taken += part
                continue
            ((kind, size),) = part.items()
            item = _noise(f"{key}/item.{len(placed)}", kind, size)
            placed.append((len(ids), item))
            ids += [config.sees.image_token_id] * item.tokens
        return cls(tuple(ids), tuple(placed))


def _noise(key: str, kind: str, size: Sequence[int]) -> Item:
    *frames, height, width = size
    shape = (*(frames or [1]), height * TOKEN, width * TOKEN, 3)
    count = int(np.prod(shape))
    pixels = words(key, -(-count // 4)).astype("<u4").view(np.uint8)[:count].reshape(shape)
    return Item.of("video" if kind == "video" else "image", pixels)
