"""Where the tokens of a prompt with pictures are: in time, height and width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ernie_rt.vision.grid import Grid


def rope_positions(length: int, items: Sequence[tuple[int, Grid]]) -> npt.NDArray[np.int32]:
    """The positions `[T, 3]`, columns t, h, w, of a prompt of so many tokens: Baidu's rule.

    `items` are where each begins in the prompt, ascending, and its grid in tokens. A text token's three positions are
    equal, and go on by one. An item's tokens are at their frame, row and column from the next position on; what follows
    goes on behind the largest of these. (transformers' `get_rope_index` goes on behind rows and columns alone, so that
    text after a long video would be at positions that its frames have.) Tokens that follow the prompt count on from its
    largest position, which is never larger than their index.
    """
    positions = np.empty((length, 3), np.int32)
    index = position = 0
    for start, grid in items:
        t, rows, columns = grid
        stop = start + t * rows * columns
        assert index <= start and stop <= length
        _count(positions[index:start], position)
        position += start - index
        positions[start:stop] = np.indices(grid, np.int32).reshape(3, -1).T + position
        position += max(grid)
        index = stop
    _count(positions[index:], position)
    return positions


def _count(rows: npt.NDArray[np.int32], first: int) -> None:
    rows[:] = np.arange(first, first + len(rows), dtype=np.int32)[:, None]
