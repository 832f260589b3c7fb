"""Frames as the rows that a vision tower takes in, and where each row lies."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.vision.grid import MERGE, PATCH

Array = npt.NDArray[Any]

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of red, green and blue between 0 and 1."""


def levels() -> npt.NDArray[np.float32]:
    """What each level of red, green and blue becomes, `[3, 256]`: computed in float32, as transformers does."""
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    return (scaled - mean) / std


def patch_rows(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The normalised patches of frames `[t, H, W, 3]`: `[t * H * W / 196, 588]`.

    Frame by frame, block by block of 2x2 patches, row by row of blocks; a block's four patches follow one another. A
    patch is its red, its green and its blue, 14 rows of 14 pixels each.
    """
    t, height, width, _ = frames.shape
    rows, columns, side = height // (MERGE * PATCH), width // (MERGE * PATCH), PATCH
    blocks = frames.reshape(t, rows, MERGE, side, columns, MERGE, side, 3).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    patches = np.empty(blocks.shape, np.float32)
    for channel, values in enumerate(levels()):
        np.take(values, blocks[..., channel, :, :], out=patches[..., channel, :, :])
    return patches.reshape(-1, 3 * side * side)


def vision_inputs(frames: npt.NDArray[np.uint8]) -> dict[str, Array]:
    """What the graph `vision` takes in for frames `[t, H, W, 3]`, of which there is one, or an even number.

    S patches, M = S / 4 blocks and F features: `patches f32[S, 588]`; `places i32[S, 2]`, the row and the column of
    each patch in its frame; `frame i32[S]`, which frame it is of; `blocks i32[M, 4]`, the patches of each block; `pairs
    i32[F, 2]`, the blocks that make a feature: those of one place in two frames, or a picture's twice.
    """
    t, height, width, _ = frames.shape
    rows, columns = height // PATCH, width // PATCH
    of_frame = rows * columns
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)  # [rows, columns, 2]
    places = places.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, 2).transpose(0, 2, 1, 3, 4).reshape(-1, 2)
    block = np.arange(t * of_frame // MERGE**2).reshape(t, -1)
    return {
        "patches": patch_rows(frames),
        "places": np.tile(places, (t, 1)).astype(np.int32),
        "frame": np.repeat(np.arange(t, dtype=np.int32), of_frame),
        "blocks": np.arange(t * of_frame, dtype=np.int32).reshape(-1, MERGE**2),
        "pairs": np.stack([block[0::2], block[1::2] if t > 1 else block], axis=-1).reshape(-1, 2).astype(np.int32),
    }
