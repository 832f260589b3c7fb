"""Integers of 4 or 8 bits in blocks, each with a scale: from numbers, to numbers, and in two layouts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import CheckpointError
from ernie_rt.graph.types import Storage, TensorType

TILE_ROWS: Final = 16

CHUNK: Final = 1 << 17
"""Numbers worked on at once: what is made of them stays in the cache."""

SHRINK: Final = (1.0, 0.95, 0.9, 0.85, 0.8)
"""How far a clip search narrows the range of a block."""

LARGEST: Final = float(np.finfo(np.float16).max)
SMALLEST: Final = float(np.finfo(np.float16).smallest_subnormal)

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Float16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class BlockQuantized(Storage):
    """Integers of 4 or 8 bits, with a float16 scale for each `block` of them along the last axis, K.

    A number is `(code - zero) * scale`. Parts of a weight `[.., R, K]` or, gate and up, `[.., R, 2, K]`:

    - "raw", the order of ONNX Runtime's MatMulNBits: `codes` u8 `[.., K * bits / 8]`, of a byte the low nibble the even
      k; `scales` f16 `[.., K / block]`.
    - "tiled", in which a kernel streams 16 rows at once: R counts tiles, the last one filled up with zeros, `codes` are
      `[.., 16 * K * bits / 8]` and `scales` `[.., 16 * K / block]`. Every 64 bytes of a tile, the c-th, hold 4 of each
      row: of int8 the numbers 4c to 4c + 3; of int4 byte j has number 8c + j in its low nibble and 8c + 4 + j in its
      high one. Scales are in the order of the blocks, 16 rows' of each.
    """

    kind = "blocks"

    bits: Literal[4, 8]
    block: Literal[32, 64, 128]
    layout: Literal["raw", "tiled"] = "raw"

    def __post_init__(self) -> None:
        whole = type(self.bits) is int and type(self.block) is int  # in a manifest 32.0 may stand
        sizes = whole and self.bits in (4, 8) and self.block in (32, 64, 128)
        if not sizes or self.layout not in ("raw", "tiled"):
            raise ValueError(f"no storage of {self.bits!r} bits in blocks of {self.block!r}, layout {self.layout!r}")

    def __str__(self) -> str:
        return f"int{self.bits}/{self.block}{' tiled' if self.layout == 'tiled' else ''}"

    @property
    def zero(self) -> int:
        """The code of the number zero."""
        return 1 << (self.bits - 1)

    @property
    def tile(self) -> int:
        return TILE_ROWS if self.layout == "tiled" else 1

    @property
    def activation_block(self) -> int:
        return self.block

    def problem(self, type: TensorType, paired: bool = False) -> str | None:
        *rows, columns = type.shape()
        if columns % self.block:
            return f"blocks of {self.block} do not divide its last axis"
        axis = -2 if paired else -1
        if len(rows) > -axis and rows[axis] % self.tile:
            return f"tiles of {self.tile} do not divide the rows of an expert"
        return None

    def parts(self, type: TensorType, paired: bool = False) -> dict[str, TensorType]:
        *rows, columns = cast(tuple[int, ...], type.dims)  # those that are symbolic stay so
        axis = -2 if paired else -1
        if self.tile > 1:
            rows[axis] = -(-rows[axis] // self.tile)
        return {
            "codes": TensorType("uint8", (*rows, self.tile * columns * self.bits // 8)),
            "scales": TensorType("float16", (*rows, self.tile * columns // self.block)),
        }

    def laid_out(self, layout: str) -> BlockQuantized:
        return replace(self, layout=layout)  # type: ignore[arg-type]  # which is checked when it is made

    def quantize(self, rows: Float32, *, search: bool, where: str) -> tuple[dict[str, Array], float, float]:
        """Codes and scales, the squared error, and the sum of squares.

        Without `search` the number of a block that is farthest from zero gets the lowest code, hence no error but its
        scale's rounding, and the scale its sign. With it, of the scales that give this number the lowest or the highest
        code, in a range down to 0.8 times as wide, each block takes the first with the least squared error.

        Raises CheckpointError, naming `where`, for NaN, infinity, and numbers too large for a float16 scale.
        """
        *outer, columns = rows.shape
        values = rows.reshape(-1, columns)
        codes = np.empty((len(values), columns * self.bits // 8), np.uint8)
        scales = np.empty((len(values), columns // self.block), np.float16)
        error = energy = 0.0
        step = max(1, CHUNK // columns)
        for start in range(0, len(values), step):
            piece = slice(start, start + step)
            # One block a column, so that what follows goes along memory, for all blocks at once.
            blocks = np.ascontiguousarray(values[piece].reshape(-1, self.block).T)
            found, scale, lost = _round(blocks, self, search, where)
            codes[piece] = found.T.reshape(-1, codes.shape[1])
            scales[piece] = scale.reshape(-1, scales.shape[1])
            error += lost
            energy += float(np.einsum("ij,ij->j", blocks, blocks).sum(dtype=np.float64))
        return {"codes": codes.reshape(*outer, -1), "scales": scales.reshape(*outer, -1)}, error, energy

    def dequantize(self, parts: Mapping[str, Array]) -> Float32:
        """float32 holds the numbers exactly."""
        codes = parts["codes"]
        numbers = np.take(_numbers(self), codes.reshape(-1), axis=0).reshape(-1, self.block)
        numbers *= parts["scales"].astype(np.float32).reshape(-1, 1)
        return numbers.reshape(*codes.shape[:-1], -1)

    def pack(self, parts: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.layout == "raw":
            return parts
        codes = parts["codes"]
        if self.bits == 4:  # n0 n1, n2 n3, n4 n5, n6 n7 become n0 n4, n1 n5, n2 n6, n3 n7
            codes = _regroup(codes, (2, 4))
        return {"codes": _tile(codes, 4), "scales": _tile(parts["scales"], 1)}

    def rows(self, parts: Mapping[str, Array], axes: int, start: int, stop: int) -> Mapping[str, Array]:
        first = start // self.tile
        found = Storage.rows(self, parts, axes, first, -(-stop // self.tile))
        if self.layout == "raw":
            return found
        codes = _untile(found["codes"], 4)
        if self.bits == 4:
            codes = _regroup(codes, (4, 2))
        inside = slice(start - first * self.tile, stop - first * self.tile)
        return {"codes": codes[inside], "scales": _untile(found["scales"], 1)[inside]}

    def synthesize(self, part: str, mean: float, std: float, quantiles: Array) -> Array:
        """Codes drawn evenly; scales of one size, for the same standard deviation, and a sign."""
        codes = np.arange(len(quantiles)) % (1 << 8)
        if part == "codes":
            return codes
        spread = std * math.sqrt(12 / (4**self.bits - 1))  # of one of 2 ** bits numbers, evenly drawn
        return np.where(codes % 2, spread, -spread)


def _round(blocks: Float32, storage: BlockQuantized, search: bool, where: str) -> tuple[UInt8, Float16, float]:
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


def _numbers(storage: BlockQuantized) -> Float32:
    """The numbers before scaling in each byte: `[256, 8 / bits]`."""
    code = np.arange(256)
    each = code[:, None] if storage.bits == 8 else np.stack((code & 15, code >> 4), axis=1)
    return (each - storage.zero).astype(np.float32)


def _tile(raw: Array, width: int) -> Array:
    """Bring `width` elements of each of 16 rows together: `[16 R, .., K']` to `[R, .., 16 K']`."""
    missing = -len(raw) % TILE_ROWS
    if missing:
        raw = np.concatenate((raw, np.zeros((missing, *raw.shape[1:]), raw.dtype)))
    rows, *middle, columns = raw.shape
    split = raw.reshape(rows // TILE_ROWS, TILE_ROWS, *middle, columns // width, width)
    return np.ascontiguousarray(np.moveaxis(split, 1, -2)).reshape(rows // TILE_ROWS, *middle, TILE_ROWS * columns)


def _untile(tiles: Array, width: int) -> Array:
    """The reverse."""
    rows, *middle, columns = tiles.shape
    split = tiles.reshape(rows, *middle, columns // (TILE_ROWS * width), TILE_ROWS, width)
    return np.ascontiguousarray(np.moveaxis(split, -2, 1)).reshape(rows * TILE_ROWS, *middle, columns // TILE_ROWS)


def _regroup(codes: Array, groups: tuple[int, int]) -> UInt8:
    """Swap the axes of every 8 nibbles, taken as `groups`."""
    nibbles = np.stack((codes & 15, codes >> 4), axis=-1).reshape(*codes.shape[:-1], -1, *groups)
    pairs = np.swapaxes(nibbles, -1, -2).reshape(*codes.shape, 2)
    packed: UInt8 = pairs[..., 0] | pairs[..., 1] << 4
    return packed
