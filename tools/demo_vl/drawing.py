"""Pictures: what lies in one, and its pixels, drawn as a person would in a paint program."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import ernie_rt

COLOURS: Final[Mapping[str, tuple[tuple[int, int, int], ...]]] = {
    "red": ((220, 30, 30), (255, 0, 0), (200, 20, 50)),
    "orange": ((255, 140, 0), (245, 130, 32)),
    "yellow": ((255, 230, 20), (255, 255, 0), (250, 210, 40)),
    "green": ((40, 160, 60), (0, 200, 0), (0, 128, 0)),
    "blue": ((30, 80, 220), (0, 0, 255), (60, 130, 230)),
    "purple": ((130, 40, 170), (128, 0, 128), (140, 60, 200)),
    "pink": ((255, 130, 190), (255, 105, 180), (255, 170, 200)),
    "brown": ((130, 75, 35), (110, 65, 30), (150, 90, 50)),
    "black": ((0, 0, 0), (20, 20, 20)),
    "white": ((255, 255, 255), (248, 248, 248)),
    "gray": ((128, 128, 128), (150, 150, 150), (110, 110, 110)),
}
"""The colours that have a name, and what people mix for each."""
JITTER: Final = 10
"""How far each channel may lie from a named colour."""


def _regular(corners: int, turn: float = 0.0) -> list[tuple[float, float]]:
    angles = [turn + math.tau * i / corners for i in range(corners)]
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


def _star() -> list[tuple[float, float]]:
    outer, inner = _regular(5), _regular(5, math.pi / 5)
    return [(scale * x, scale * y) for i in range(5) for scale, (x, y) in ((1.1, outer[i]), (0.45, inner[i]))]


def _heart() -> list[tuple[float, float]]:
    points = []
    for t in (math.tau * i / 40 for i in range(40)):
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(y + 2.5) / 15))
    return points


SHAPES: Final[Mapping[str, list[tuple[float, float]]]] = {
    "circle": _regular(40),
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0, -1.1), (0.85, 0), (0, 1.1), (-0.85, 0)],
    "cross": [
        (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
        (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
    ],
}  # fmt: skip
"""Corners, about the origin; a radius is the unit."""
DIGITS: Final = "0123456789"
ROBOTO: Final = Path(ernie_rt.__file__).parent / "vision" / "font" / "Roboto-Regular.ttf"


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape, or a number: its centre in shares of the picture's width and height, and half of its size (of a number:
    of its width) in shares of the shorter side (of a number: of the width)."""

    what: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def is_number(self) -> bool:
        return self.what not in SHAPES


@dataclass(frozen=True, slots=True)
class Picture:
    things: tuple[Thing, ...]
    background: str


def draw(picture: Picture, width: int, height: int, rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """The picture in pixels, and a map of what lies where: 0 for nothing, else a count of things and, of numbers, of
    digits, in the order of `labels`.

    `rng` decides what a person would not mind: shades, outlines, slight turns, the font.
    """
    image = Image.new("RGB", (width, height), _shade(picture.background, rng))
    places = Image.new("L", (width, height))
    canvas, under = ImageDraw.Draw(image), ImageDraw.Draw(places)
    number = 1
    for thing in picture.things:
        shade = _shade(thing.colour, rng)
        if thing.is_number:
            number = _write(canvas, under, thing, shade, number, (width, height), rng)
        else:
            corners = _corners(thing, width, height, rng)
            canvas.polygon(corners, shade)
            if rng.random() < 0.25:  # the last width is drawn around the corner again, which closes the line
                line = max(1, round(thing.radius * min(width, height) * rng.uniform(0.05, 0.14)))
                canvas.line([*corners, *corners[:2]], _outline(thing, picture, rng), line, "curve")
            under.polygon(corners, number)
            number += 1
    return image, places


def labels(picture: Picture) -> list[tuple[str, str]]:
    """What the numbers of a map stand for, from 1 on: a shape or digit, and its colour."""
    return [
        (part, thing.colour) for thing in picture.things for part in (thing.what if thing.is_number else [thing.what])
    ]


def noisy(pixels: npt.NDArray[np.uint8], rng: random.Random) -> npt.NDArray[np.uint8]:
    """Pixels as a camera or a strong compression leaves them."""
    spread = rng.uniform(1, 7)
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(pixels.shape, np.float32)
    return np.clip(pixels + spread * noise, 0, 255).astype(np.uint8)


def _shade(colour: str, rng: random.Random) -> tuple[int, int, int]:
    jitter = JITTER if rng.random() < 0.7 else 0
    r, g, b = (min(255, max(0, c + rng.randint(-jitter, jitter))) for c in rng.choice(COLOURS[colour]))
    return r, g, b


def _outline(thing: Thing, picture: Picture, rng: random.Random) -> tuple[int, int, int]:
    dark = "black" if "black" not in (thing.colour, picture.background) else "gray"
    return _shade(dark if rng.random() < 0.8 else thing.colour, rng)


def _corners(thing: Thing, width: int, height: int, rng: random.Random) -> list[tuple[float, float]]:
    radius = thing.radius * min(width, height)
    turn = math.radians(rng.uniform(-8, 8)) if rng.random() < 0.4 else 0.0
    stretch = rng.uniform(0.92, 1.08)
    a, b = radius * math.cos(turn), radius * math.sin(turn)
    x0, y0 = thing.x * width, thing.y * height
    return [(x0 + a * x * stretch - b * y, y0 + b * x * stretch + a * y) for x, y in SHAPES[thing.what]]


@functools.cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    if name == "roboto":
        return ImageFont.truetype(ROBOTO, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _write(
    canvas: ImageDraw.ImageDraw,
    under: ImageDraw.ImageDraw,
    thing: Thing,
    shade: tuple[int, int, int],
    number: int,
    size: tuple[int, int],
    rng: random.Random,
) -> int:
    """Write a number as large as its radius, or as the picture's height, lets it be; the next number of the map."""
    width, height = size
    name = rng.choice(("roboto", "pillow"))
    probe = _font(name, 100)
    left, top, right, bottom = probe.getbbox(thing.what)
    scale = min(2 * thing.radius * width / (right - left), 0.75 * height / (bottom - top))
    font = _font(name, max(8, round(100 * scale)))
    left, top, right, bottom = font.getbbox(thing.what)
    x, y = thing.x * width - (left + right) / 2, thing.y * height - (top + bottom) / 2
    bold = round(font.size * rng.choice((0.0, 0.0, 0.02, 0.04)))
    canvas.text((x, y), thing.what, shade, font, stroke_width=bold)
    for i in range(len(thing.what)):
        start, end = font.getlength(thing.what[:i]), font.getlength(thing.what[: i + 1])
        under.rectangle((x + start, y + top, x + end - 1, y + bottom), number + i)
    return number + len(thing.what)
