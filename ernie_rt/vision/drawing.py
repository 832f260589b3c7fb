"""The time of a video's frame, drawn into its corner as ERNIE was trained to read it."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files

from PIL import Image, ImageDraw, ImageFont

SIZE = 0.1
"""Of the letters, as a share of the frame's shorter side; of their white edge, as a share of the letters."""


def draw_timestamp(image: Image.Image, text: str) -> None:
    """Write it in black with a white edge into the upper left corner of a frame in its own size, which it changes."""
    size = int(SIZE * min(image.size))
    if size < 1:  # nobody could read it
        return
    font = ImageFont.truetype(io.BytesIO(_roboto()), size)
    edge = int(SIZE * size)
    ImageDraw.Draw(image).text((0, 0), text, font=font, fill=(0, 0, 0), stroke_width=edge, stroke_fill=(255, 255, 255))


@cache
def _roboto() -> bytes:
    """Roboto Regular 2.138, the font of Baidu's code in the version that PyPI's `font-roboto` 0.0.1 has."""
    return files("ernie_rt.vision").joinpath("font", "Roboto-Regular.ttf").read_bytes()
