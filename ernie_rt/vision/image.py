"""Pictures from files, bytes, Pillow and arrays, made the size that the model takes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import MediaError
from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS, size_of
from ernie_rt.vision.item import Item

if TYPE_CHECKING:
    from PIL import Image

    ImageSource = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]


def load_image(source: ImageSource, *, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS) -> Item:
    """A picture as the model gets it: upright, red, green and blue, bicubically resized to `size_of` its size.

    `source` is the path of a file or its bytes (PNG, JPEG, WebP, a GIF's first frame), a Pillow image, or an array of
    bytes `[height, width, 3]`; the last two are taken as they are, whatever orientation a camera noted. Transparency is
    dropped. `max_pixels` is for the caller to choose: on a CPU `CPU_PIXELS` is sensible. MediaError where it is no
    picture that is read here, broken, or over a limit.
    """
    from PIL import Image, ImageOps

    image: Image.Image
    if isinstance(source, np.ndarray):
        image = Image.fromarray(source)
    elif isinstance(source, Image.Image):
        image = source
    else:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF")))
        except Exception as error:
            raise MediaError("the picture cannot be read", found=f"{type(error).__name__}: {error}") from error
    size = size_of(*image.size, min_pixels=min_pixels, max_pixels=max_pixels)
    pixels: npt.NDArray[Any] = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return Item.of("image", pixels[None], _note(image.size, size))


def _note(given: tuple[int, int], size: tuple[int, int]) -> str:
    """What to say of a picture that was made smaller by more than rounding does."""
    if size[0] * size[1] > 0.9 * given[0] * given[1]:
        return ""
    return (
        f"the picture of {given[0]}x{given[1]} pixels was made {size[0]}x{size[1]}, since max_pixels allows no more: "
        "small print may be lost"
    )


def image_size(source: ImageSource) -> tuple[int, int]:
    from PIL import Image

    if isinstance(source, np.ndarray):
        return source.shape[1], source.shape[0]
    if isinstance(source, Image.Image):
        return source.size
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).size
