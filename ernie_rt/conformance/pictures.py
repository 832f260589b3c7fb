"""Pictures and videos in the prompts of a model that sees: each run of placeholders is one, made of random words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np

from ernie_rt.conformance.cases import words
from ernie_rt.vision.grid import TOKEN
from ernie_rt.vision.item import Item


@lru_cache(maxsize=256)
def drawn(key: str, frames: int, rows: int, columns: int) -> Item:
    """A picture, or a video of an even number of frames, of so many tokens in height and width."""
    shape = frames, rows * TOKEN, columns * TOKEN, 3
    pixels = words(key, -(-int(np.prod(shape)) // 4)).view(np.uint8)[: int(np.prod(shape))]
    return Item.of("image" if frames == 1 else "video", pixels.reshape(shape))


def placed(key: str, placeholder: int, ids: Sequence[int]) -> list[tuple[int, Item]]:
    """The items of a prompt and where each begins: of four tokens, or a multiple, a video of two pairs of frames, else
    a picture, of two rows where that can be. `key` names all that were drawn together."""
    found: list[tuple[int, Item]] = []
    start = 0
    for id, run in groupby(ids):
        count = len(list(run))
        if id == placeholder:
            rows = 1 if count % 2 else 2
            shape = (4, rows, count // 2 // rows) if count % 4 == 0 else (1, rows, count // rows)
            found.append((start, drawn(f"{key}/{len(found)}", *shape)))
        start += count
    return found
