"""How large a picture is made, and how many patches and tokens that gives: from a header's width and height alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Final

from ernie_rt.display import shown
from ernie_rt.errors import MediaError, OptionError

PATCH: Final = 14
"""Pixels of a side of a patch."""
MERGE: Final = 2
"""Patches of a side of a block, which becomes a token."""
TOKEN: Final = PATCH * MERGE
"""Pixels of a side of what becomes a token: the sides of a prepared picture are multiples of it."""

MIN_PIXELS: Final = 4 * TOKEN**2
MAX_PIXELS: Final = 6177 * TOKEN**2
"""What Baidu's code hands its processor, whatever preprocessor_config.json says (6144 * 28 * 28)."""
CPU_PIXELS: Final = 1024 * TOKEN**2
"""About 0.8 megapixels: what a caller may take for `max_pixels` where a model runs on a CPU, unless somebody asks for
more. A picture of 1920x1080 is 33 TFLOPs of VL-28B's tower and resampler at its full size, and 8 at this one. A picture
that was made smaller says so in its `note`."""
VIDEO_MIN_PIXELS: Final = 299 * TOKEN**2
VIDEO_MAX_PIXELS: Final = 1196 * TOKEN**2
"""Of each frame."""
HIGHEST_MAX_PIXELS: Final = 1 << 26
MAX_RATIO: Final = 200

Grid = tuple[int, int, int]
"""Frames, rows and columns, in patches or in tokens."""


def size_of(
    width: int,
    height: int,
    *,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    where: str | None = None,
) -> tuple[int, int]:
    """The width and height that a picture is resized to: Baidu's rule.

    Both are multiples of 28 near to the picture's own, with at most `max_pixels` in all and, where that leaves room, at
    least `min_pixels`. MediaError, of the picture at `where`, for one without pixels or 200 times longer than wide.
    """
    check_pixels(min_pixels, max_pixels)
    if min(width, height) < 1:
        raise MediaError("the picture has no pixels", where=where, found=f"{width}x{height}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise MediaError(
            "the picture is too long and narrow",
            where=where,
            expected=f"at most {MAX_RATIO} times as long as wide",
            found=f"{width}x{height}",
            hint="Crop it, or cut it into several",
        )
    size = _multiples(width, height, round)
    if math.prod(size) < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        size = _multiples(width * scale, height * scale, math.ceil)
    if math.prod(size) > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        size = _multiples(width / scale, height / scale, math.floor)
    if math.prod(size) > max_pixels:  # a sliver, whose short side would be 0
        longest = max_pixels // TOKEN**2 * TOKEN
        size = min(size[0], longest), min(size[1], longest)
    return size


def usual_pixels(min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS, *, on_cpu: bool) -> int:
    """The most pixels that a picture keeps where nobody says, of a checkpoint with these limits."""
    return max(min_pixels, min(max_pixels, CPU_PIXELS)) if on_cpu else max_pixels


def grid_of(
    width: int, height: int, frames: int = 1, *, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> Grid:
    """The grid in patches of a picture or, with several frames, of a video, whose last one is doubled where need be."""
    width, height = size_of(width, height, min_pixels=min_pixels, max_pixels=max_pixels)
    return frames + (frames % 2 if frames > 1 else 0), height // PATCH, width // PATCH


def merged(grid: Grid) -> Grid:
    """The grid in tokens of a grid in patches: blocks of 2x2, and two frames of a video."""
    frames, rows, columns = grid
    return (frames + 1) // 2, rows // MERGE, columns // MERGE


def tokens_of(grid: Grid) -> int:
    """How many tokens a grid in patches becomes."""
    return math.prod(merged(grid))


def patches_of(grid: Grid) -> int:
    """How many patches of a grid in patches have to be encoded at once: a picture's, or those of a pair of frames."""
    frames, rows, columns = grid
    return min(frames, 2) * rows * columns


def check_patches(patches: int, max_patches: int) -> None:
    """MediaError where so many patches, which have to be encoded at once, are more than a step takes in."""
    if patches > max_patches:
        raise MediaError(
            "more patches than a step of the model takes in",
            expected=f"at most {max_patches:,} of a picture, or of two frames",
            found=f"{patches:,}",
            hint="Lower max_pixels, or load the model with a higher max_patches",
        )


def check_pixels(min_pixels: int, max_pixels: int) -> None:
    """OptionError where these are no limits of a picture's pixels."""
    if not isinstance(max_pixels, Integral) or not TOKEN**2 <= max_pixels <= HIGHEST_MAX_PIXELS:
        raise OptionError(
            "an impossible limit of pixels",
            where="max_pixels",
            expected=f"{TOKEN**2} to {HIGHEST_MAX_PIXELS}",
            found=shown(max_pixels),
        )
    if not isinstance(min_pixels, Integral) or not 0 <= min_pixels <= HIGHEST_MAX_PIXELS:
        raise OptionError(
            "an impossible limit of pixels",
            where="min_pixels",
            expected=f"0 to {HIGHEST_MAX_PIXELS}",
            found=shown(min_pixels),
        )


def _multiples(width: float, height: float, whole: Callable[[float], int]) -> tuple[int, int]:
    """Both in whole tokens, at least one."""
    return max(TOKEN, whole(width / TOKEN) * TOKEN), max(TOKEN, whole(height / TOKEN) * TOKEN)
