"""Pictures from files, bytes, Pillow and arrays, made the size that the model takes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Union

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import MediaError
from ernie_rt.files import MIB
from ernie_rt.vision.decoding import Decoding, need
from ernie_rt.vision.formats import HEAD_BYTES, format_of
from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS, TOKEN, size_of
from ernie_rt.vision.item import Item, Origin
from ernie_rt.vision.sources import check_array, contents

if TYPE_CHECKING:
    from PIL import Image

ImageSource = Union[str, Path, bytes, "Image.Image", npt.NDArray[np.uint8]]

MAX_BYTES: Final = 32 * MIB
MAX_SOURCE_PIXELS: Final = 1 << 26
MAX_SIDE: Final = 32768
SECONDS: Final = 60.0
CPU_SECONDS: Final = 10
"""Of 64 megapixels, those in WebP take longest: 2 to 4 s."""
SMALLER: Final = 0.9
"""Of its pixels, where a picture counts as made smaller, and not merely rounded to whole tokens."""


def load_image(
    source: ImageSource,
    *,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    announce: Callable[[int], object] = lambda tokens: None,
) -> Item:
    """A picture as the model gets it: upright, red, green and blue, bicubically resized to `size_of` its size.

    `source` is the path of a file or its bytes (PNG, JPEG, WebP, a GIF's first frame), a Pillow image, or an array of
    bytes `[height, width, 3]`; the last two are taken as they are, whatever orientation a camera noted. Transparency is
    dropped. `max_pixels` is for the caller to choose: on a CPU `CPU_PIXELS` is sensible.
    `announce` is told how many tokens it will have before it is decoded, and may raise.

    Files and bytes are decoded in a child process. MediaError where the source is no picture that is read here, is
    broken, or over a limit: 32 MiB, 64 megapixels, 32768 pixels on a side, a side 200 times as long as the other.
    """
    file = None
    if isinstance(source, str | Path | bytes):
        data, where = contents(source, "picture", MAX_BYTES)
        file = hashlib.sha256(data).hexdigest()
        form = format_of(data[:HEAD_BYTES], "picture", where)
        opened = Decoding("picture", where, {"format": form}, data, seconds=SECONDS, cpu_seconds=CPU_SECONDS)
        with opened as decoding:
            given = decoding.about["size"]
            size = check_size(given, where, min_pixels, max_pixels)
            announce(math.prod(size) // TOKEN**2)
            pixels = decoding.pixels(size)
            if pixels.shape[1::-1] != size:
                given, size = given[::-1], size[::-1]
    else:
        given = _size(source)
        size = check_size(given, None, min_pixels, max_pixels)
        announce(math.prod(size) // TOKEN**2)
        pixels = _resized(source, size)
    origin = Origin(file, tuple(given), {"min_pixels": min_pixels, "max_pixels": max_pixels})
    return Item.of("image", pixels[None], _note(given, size, max_pixels), origin)


def _size(source: Image.Image | npt.NDArray[np.uint8]) -> tuple[int, int]:
    """The width and height of what is there already; of an array before anything is made of it."""
    need("PIL")
    from PIL import Image

    if isinstance(source, np.ndarray):
        check_array(source, "[height, width, 3]")
        return source.shape[1], source.shape[0]
    if isinstance(source, Image.Image):
        return source.size
    raise MediaError(
        "no picture", expected="a path, bytes, a Pillow image or an array", found=f"a {type(source).__name__}"
    )


def _resized(source: Image.Image | npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    from ernie_rt.vision.decoder import to_size

    try:
        data = to_size(Image.fromarray(source) if isinstance(source, np.ndarray) else source, size)
    except Exception as error:  # a file that Pillow has opened is read here, and may be broken
        raise MediaError("the picture cannot be read", found=f"{type(error).__name__}: {error}") from error
    return np.frombuffer(data, np.uint8).reshape(size[1], size[0], 3)


def check_size(given: tuple[int, int], where: str | None, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """`size_of` a picture whose own size is not too large; MediaError where it is."""
    width, height = given
    if width * height > MAX_SOURCE_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(
            "the picture is too large",
            where=where,
            expected=f"at most {MAX_SOURCE_PIXELS >> 20} megapixels, and {MAX_SIDE} pixels on a side",
            found=f"{width}x{height}",
            hint="Make it smaller first",
        )
    return size_of(width, height, min_pixels=min_pixels, max_pixels=max_pixels, where=where)


def _note(given: tuple[int, int], size: tuple[int, int], max_pixels: int) -> str:
    """What to say of a picture that `max_pixels` made smaller, and not merely rounding to whole tokens."""
    if math.prod(given) <= max_pixels or math.prod(size) > SMALLER * math.prod(given):
        return ""
    return (
        f"{given[0]}x{given[1]} pixels were made {size[0]}x{size[1]}, and small details may be lost: "
        "a higher max_pixels keeps more, and takes longer"
    )
