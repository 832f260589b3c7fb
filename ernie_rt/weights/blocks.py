"""Weights stored as blocks of integers: from numbers, to numbers, and between the layouts that `Blocks` describes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import CheckpointError
from ernie_rt.graph.types import TILE_ROWS, Blocks
from ernie_rt.weights.source import Array

CHUNK: Final = 1 << 17
"""Numbers worked on at once: what is made of them stays in the cache."""

SHRINK: Final = (1.0, 0.95, 0.9, 0.85, 0.8)
"""How far a clip search narrows the range of a block."""

LARGEST: Final = float(np.finfo(np.float16).max)
SMALLEST: Final = float(np.finfo(np.float16).smallest_subnormal)

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Float16 = npt.NDArray[np.float16]


def quantize(values: Float32, storage: Blocks, *, search: bool, where: str) -> tuple[UInt8, Float16, float, float]:
    """Codes and scales of rows `[n, K]` in the raw layout, the squared error, and the sum of squares.

    Without `search` the number of a block that is farthest from zero gets the lowest code, hence no error but its
    scale's rounding, and the scale its sign. With it, of the scales that give this number the lowest or the highest
    code, in a range down to 0.8 times as wide, each block takes the first with the least squared error.

    Raises CheckpointError, naming `where`, for NaN, infinity, and numbers too large for a float16 scale.
    """
    rows, columns = values.shape
    codes = np.empty((rows, columns * storage.bits // 8), np.uint8)
    scales = np.empty((rows, columns // storage.block), np.float16)
    error = energy = 0.0
    step = max(1, CHUNK // columns)
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        # One block a column, so that what follows goes along memory, for all blocks at once.
        blocks = np.ascontiguousarray(values[piece].reshape(-1, storage.block).T)
        found, scale, lost = _round(blocks, storage, search, where)
        codes[piece] = found.T.reshape(-1, codes.shape[1])
        scales[piece] = scale.reshape(-1, scales.shape[1])
        error += lost
        energy += float(np.einsum("ij,ij->j", blocks, blocks).sum(dtype=np.float64))
    return codes, scales, error, energy


def _round(blocks: Float32, storage: Blocks, search: bool, where: str) -> tuple[UInt8, Float16, float]:
    """Packed codes `[block * bits / 8, n]`, scales `[n]` and the squared error of blocks `[block, n]`."""
    top, bottom = blocks.max(axis=0), blocks.min(axis=0)
    farthest = np.where(top > -bottom, top, bottom)
    if not np.isfinite(farthest).all():
        raise CheckpointError("numbers that are NaN or infinite cannot be quantised", where=where)
    largest, bound = float(np.abs(farthest).max()), LARGEST * (storage.zero - 1)
    if largest > bound:
        raise CheckpointError(
            "a number is too large for a float16 scale",
            where=where,
            expected=f"at most {bound:g}",
            found=f"{largest:g}",
        )
    low, high = np.float32(-storage.zero), np.float32(storage.zero - 1)
    ends = [np.float32(factor) / end for factor in SHRINK for end in (low, high)] if search else [1 / low]
    kept = _as_scale(farthest * ends[0])
    codes, scratch = np.empty_like(blocks), np.empty_like(blocks)
    least = _try(blocks, kept, low, high, codes, scratch)
    for end in ends[1:]:
        scale = _as_scale(farthest * end)
        error = _try(blocks, scale, low, high, codes, scratch)
        better = error < least
        np.copyto(least, error, where=better)
        np.copyto(kept, scale, where=better)
    if search:
        _try(blocks, kept, low, high, codes, scratch)
    codes -= low
    packed = codes.astype(np.uint8)
    if storage.bits == 4:
        packed = packed[::2] | (packed[1::2] << np.uint8(4))
    return packed, kept.astype(np.float16), float(least.sum(dtype=np.float64))


def _as_scale(scale: Float32) -> Float32:
    """The nearest float16, but zero for zero alone, as float32."""
    tiny = np.copysign(np.float32(SMALLEST), scale)
    nearest = np.clip(scale, -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
    return np.where((nearest == 0) & (scale != 0), tiny, nearest)


def _try(
    blocks: Float32, scale: Float32, low: np.float32, high: np.float32, codes: Float32, scratch: Float32
) -> Float32:
    """Round blocks by their scales into `codes`, and return each one's squared error."""
    np.divide(blocks, np.where(scale == 0, np.float32(1), scale), out=scratch)
    np.rint(scratch, out=codes)
    np.clip(codes, low, high, out=codes)
    scratch -= codes
    error: Float32 = np.einsum("ij,ij->j", scratch, scratch)
    error *= scale
    error *= scale
    return error


def dequantize(codes: Array, scales: Array, storage: Blocks) -> Float32:
    """The numbers `[.., K]` of codes and scales in the raw layout; float32 holds them exactly."""
    numbers = np.take(_numbers(storage), codes.reshape(-1), axis=0).reshape(-1, storage.block)
    numbers *= scales.astype(np.float32).reshape(-1, 1)
    return numbers.reshape(*codes.shape[:-1], -1)


def _numbers(storage: Blocks) -> Float32:
    """The numbers before scaling in each byte: `[256, 8 / bits]`."""
    code = np.arange(256)
    each = code[:, None] if storage.bits == 8 else np.stack((code & 15, code >> 4), axis=1)
    return (each - storage.zero).astype(np.float32)


def to_tiles(codes: Array, scales: Array, storage: Blocks) -> tuple[UInt8, Float16]:
    """Raw codes and scales, `[R, K']` or of gate and up `[R, 2, K']`, in the tiled layout; zeros fill the last tile."""
    if storage.bits == 4:  # n0 n1, n2 n3, n4 n5, n6 n7 become n0 n4, n1 n5, n2 n6, n3 n7
        codes = _regroup(codes, (2, 4))
    return _tile(codes, 4), _tile(scales, 1)


def from_tiles(codes: Array, scales: Array, storage: Blocks) -> tuple[UInt8, Float16]:
    """The reverse of `to_tiles`."""
    codes, scales = _untile(codes, 4), _untile(scales, 1)
    return (_regroup(codes, (4, 2)) if storage.bits == 4 else codes), scales


def _tile(raw: Array, width: int) -> Array:
    """Bring `width` elements of each of 16 rows together: `[16 R, .., K']` to `[R, .., 16 K']`."""
    missing = -len(raw) % TILE_ROWS
    if missing:
        raw = np.concatenate((raw, np.zeros((missing, *raw.shape[1:]), raw.dtype)))
    rows, *middle, columns = raw.shape
    split = raw.reshape(rows // TILE_ROWS, TILE_ROWS, *middle, columns // width, width)
    return np.ascontiguousarray(np.moveaxis(split, 1, -2)).reshape(rows // TILE_ROWS, *middle, TILE_ROWS * columns)


def _untile(tiles: Array, width: int) -> Array:
    rows, *middle, columns = tiles.shape
    split = tiles.reshape(rows, *middle, columns // (TILE_ROWS * width), TILE_ROWS, width)
    return np.ascontiguousarray(np.moveaxis(split, -2, 1)).reshape(rows * TILE_ROWS, *middle, columns // TILE_ROWS)


def _regroup(codes: Array, groups: tuple[int, int]) -> UInt8:
    """Swap the axes of every 8 nibbles, taken as `groups`."""
    nibbles = np.stack((codes & 15, codes >> 4), axis=-1).reshape(*codes.shape[:-1], -1, *groups)
    pairs = np.swapaxes(nibbles, -1, -2).reshape(*codes.shape, 2)
    packed: UInt8 = pairs[..., 0] | pairs[..., 1] << 4
    return packed
