"""What pictures show, by chance; and which of it training never sees.

A hash decides for good which numbers are held out, and which combinations of colour and shape in which parts of a
picture. A picture of training shows nothing that is, a picture of an examination nothing else.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final, Literal

from demo.tasks import is_held_out
from demo_vl.drawing import COLOURS, SHAPES, Picture, Thing

Split = Literal["train", "held_out"]
Kind = Literal["one", "pair", "several", "number", "two"]

MOST: Final = 6
"""Shapes that are counted."""
MIDDLE: Final = (0.41, 0.59)
SIDES: Final = (0.34, 0.66)
"""Where the middle of a side begins and ends, and before and after which a thing lies at the side; between, neither."""


Combination = tuple[str, str]
"""A shape and its colour."""
COMBINATIONS: Final[list[Combination]] = [(shape, colour) for shape in SHAPES for colour in COLOURS]
RARE: Final = [(shape, colour) for shape, colour in COMBINATIONS if is_held_out("picture", f"{colour} {shape}")]
"""Combinations that training does not see everywhere."""


def held_out(thing: Thing) -> bool:
    """Whether training never sees it: a number, or a rare combination in this one of the nine parts of a picture."""
    if thing.is_number:
        return is_held_out("number", thing.what)
    place = f"{thing.colour} {thing.what} {int(3 * thing.x)} {int(3 * thing.y)}"
    return (thing.what, thing.colour) in RARE and hashlib.sha256(place.encode()).digest()[0] % 2 == 0


def draw_pictures(rng: random.Random, kind: Kind, split: Split, wide: float) -> tuple[Picture, ...]:
    """A picture, or two, for a canvas of which width / height is `wide`: all that it shows is held out, or nothing."""
    while True:
        pictures = _drawn(rng, kind, COMBINATIONS if split == "train" else RARE, wide)
        if {held_out(thing) for picture in pictures for thing in picture.things} == {split == "held_out"}:
            return pictures


def _drawn(rng: random.Random, kind: Kind, pairs: list[Combination], wide: float) -> tuple[Picture, ...]:
    match kind:
        case "one":
            return (_one(rng, rng.choice(pairs), wide),)
        case "pair":
            return (_pair(rng, pairs, wide),)
        case "several":
            return (_several(rng, pairs, wide),)
        case "number":
            return (_number(rng, wide),)
        case "two":
            return _two(rng, pairs, wide)


def _two(rng: random.Random, pairs: list[Combination], wide: float) -> tuple[Picture, Picture]:
    """Two pictures of one thing each: half of the time of the same colour, half of the time of the same shape."""
    shape, colour = rng.choice(pairs)
    same_shape, same_colour = rng.random() < 0.5, rng.random() < 0.5
    fitting = [pair for pair in pairs if (pair[0] == shape, pair[1] == colour) == (same_shape, same_colour)]
    first, second = (shape, colour), rng.choice(fitting or pairs)
    return _one(rng, first, wide), _one(rng, second, wide)


def zone(at: float) -> int | None:
    """Whether a centre lies before (-1), in (0) or beyond (1) the middle; None where people would not agree."""
    if at < SIDES[0] or at > SIDES[1]:
        return -1 if at < SIDES[0] else 1
    return 0 if MIDDLE[0] < at < MIDDLE[1] else None


def _one(rng: random.Random, combination: Combination, wide: float) -> Picture:
    shape, colour = combination
    radius = rng.uniform(0.1, 0.42) if rng.random() < 0.5 else rng.uniform(0.1, 0.25)
    x, y = (_centre(rng, radius * shorter) for shorter in (min(1, 1 / wide), min(1, wide)))
    return Picture((Thing(shape, colour, x, y, radius),), _background(rng, {colour}))


def _centre(rng: random.Random, radius: float) -> float:
    """A coordinate with room for a radius on both sides, one third of the time each before, in and after the middle."""
    first, last = rng.choice(((0.0, SIDES[0]), MIDDLE, (SIDES[1], 1.0)))
    first, last = max(first, radius + 0.02), min(last, 0.98 - radius)
    return rng.uniform(first, last) if first < last else 0.5


def _pair(rng: random.Random, pairs: list[Combination], wide: float) -> Picture:
    """Two things beside or above each other, of another shape and another colour."""
    first = rng.choice(pairs)
    second = rng.choice([pair for pair in pairs if pair[0] != first[0] and pair[1] != first[1]])
    radius = [rng.uniform(0.11, 0.21) for _ in range(2)]
    along = [rng.uniform(0.22, 0.32), rng.uniform(0.68, 0.78)]
    start = rng.uniform(0.27, 0.73)
    across = [min(0.78, max(0.22, start + rng.uniform(-0.12, 0.12))) for _ in range(2)]
    beside = rng.random() < (0.5 if 0.6 < wide < 1.7 else float(wide > 1))
    things = []
    for (shape, colour), a, b, r in zip((first, second), along, across, radius, strict=True):
        x, y = (a, b) if beside else (b, a)
        things.append(Thing(shape, colour, x, y, r))
    return Picture(tuple(things), _background(rng, {first[1], second[1]}))


def _several(rng: random.Random, pairs: list[Combination], wide: float) -> Picture:
    shape, colour = rng.choice(pairs)
    same_shape, same_colour = ([p for p in pairs if p[i] == v] for i, v in ((0, shape), (1, colour)))
    pool = rng.choice(([(shape, colour)], same_shape, same_colour, rng.sample(pairs, 2), rng.sample(pairs, 3)))
    count = rng.randint(1, MOST) if len(pool) == 1 else rng.randint(2, MOST)
    chosen = [rng.choice(pool) for _ in range(count)]
    columns, rows = (3, 3) if 0.75 < wide < 1.33 else (4, 2) if wide > 1 else (2, 4)
    if count <= 4 and columns == rows and rng.random() < 0.4:
        columns = rows = 2
    cells = rng.sample([(i, j) for i in range(columns) for j in range(rows)], count)
    room = min(max(1, wide) / columns, max(1, 1 / wide) / rows)  # of a cell, in shorter sides
    things = []
    for (i, j), (shape, colour) in zip(cells, chosen, strict=True):
        radius = room * rng.uniform(0.28, 0.42)
        dx, dy = ((room / 2 - radius) * rng.uniform(-1, 1) / side for side in (max(1, wide), max(1, 1 / wide)))
        things.append(Thing(shape, colour, (i + 0.5) / columns + dx, (j + 0.5) / rows + dy, radius))
    return Picture(tuple(things), _background(rng, {colour for _, colour in chosen}))


def _number(rng: random.Random, wide: float) -> Picture:
    """A number that is large enough to be read: a digit is at least a seventh of a square picture wide."""
    number = str(rng.randrange(10 ** rng.randint(1, 3)))
    least = min(0.47, 0.07 * len(number) / min(1, wide) ** 0.5)
    radius = rng.uniform(least, max(least, min(0.47, 0.22 * len(number))))
    height = min(0.75, 1.5 * 2 * radius * wide / len(number))  # about
    x = rng.uniform(radius + 0.02, 0.98 - radius)
    y = rng.uniform(height / 2 + 0.05, max(height / 2 + 0.05, 0.95 - height / 2))
    colour = rng.choice(list(COLOURS)) if rng.random() < 0.6 else "black"
    return Picture((Thing(number, colour, x, y, radius),), _background(rng, {colour}))


def _background(rng: random.Random, colours: set[str]) -> str:
    """White, most often, and no colour that something has."""
    others = [colour for colour in COLOURS if colour not in colours]
    return "white" if "white" in others and rng.random() < 0.5 else rng.choice(others)
