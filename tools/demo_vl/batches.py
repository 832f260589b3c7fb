"""Talks as token ids, pictures as patches, and batches of both."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from demo_vl.curriculum import Talk, draw_any
from demo_vl.drawing import COLOURS, DIGITS, SHAPES, Picture, draw, labels, noisy
from demo_vl.questions import CHINESE
from demo_vl.scenes import Kind, draw_pictures
from demo_vl.tokenizer import PLACEHOLDER
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.vision.grid import PATCH, TOKEN, size_of
from ernie_rt.vision.image import load_image
from ernie_rt.vision.patches import patch_rows
from ernie_rt.vision.positions import rope_positions

MIN_PIXELS: Final = 12 * TOKEN**2
MAX_PIXELS: Final = 17 * TOKEN**2
"""Of a prepared picture, whatever size it has: 10 to 17 tokens, four by four of a square one."""
SMALLEST, LARGEST = 56, 360
"""Sides of what is drawn."""
SIGHT_SHARES: Final[Mapping[Kind, float]] = {"one": 0.1, "several": 0.4, "number": 0.5}
"""How often each kind of picture is drawn where the tower learns alone: those are busy that have much to say."""
NOISY_SHARE: Final = 0.25
MARK: Final = "\0"
"""Where a picture is in a prompt's text."""
WHATS: Final = ("", *SHAPES, *DIGITS)
HUES: Final = tuple(COLOURS)
COVERED: Final = 0.25
"""The share of a patch that a thing covers which is said to lie there."""


@dataclass(frozen=True, slots=True)
class Sights:
    """Pictures of one size: patches `[P, S, 588]`, what lies in each `[P, S]` (counts in WHATS and in HUES), and the
    rows and columns of blocks."""

    patches: Tensor
    whats: Tensor
    hues: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens `[B, T]`, whose positions `[B, T, 3]` are time, height and width, and the pictures in them.

    `targets` is what is to be written in the place of a token, and `learned` whether.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    learned: Tensor
    sights: Sights


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a model sees it, and what lies in each of its patches."""

    patches: npt.NDArray[np.float32]
    whats: npt.NDArray[np.int64]
    hues: npt.NDArray[np.int64]


class Encoder:
    """Talks to token ids, as the chat template of a folder writes them."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.tokenizer = Tokenizer.load(folder, config)
        reserved = self.tokenizer.reserved
        self.rows, self.end = config.vocab_size, config.eos_token_id[0]
        self.begin, self.separator = reserved["<|begin_of_sentence|>"], reserved["<|end_of_sentence|>"]
        self.start, self.placeholder, self.stop = (
            reserved[token] for token in ("<|IMAGE_START|>", PLACEHOLDER, "<|IMAGE_END|>")
        )
        self.text = functools.lru_cache(1 << 16)(self._text)

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text))

    def names(self) -> tuple[Tensor, Tensor]:
        """The tokens that each of WHATS, and of HUES, is called by, English and Chinese: 1 in `[names, vocabulary]`."""
        tables = []
        for called in (WHATS, HUES):
            table = torch.zeros(len(called), self.rows)
            for row, name in enumerate(called):
                for word in (f" {name}", CHINESE[name]) if name in CHINESE else [name] * bool(name):
                    table[row, self.text(word)[0]] = 1
            tables.append(table)
        return tables[0], tables[1]

    def sides(self, grid: tuple[int, int]) -> Tensor:
        """The tokens for where each block of a picture is: 1 in `[blocks, vocabulary]`."""
        table = torch.zeros(*grid, self.rows)
        rows, columns = (torch.linspace(-1, 1, side) for side in grid)
        for words, there in (
            ((" top", "上面"), rows[:, None] < -0.5),
            ((" bottom", "下面"), rows[:, None] > 0.5),
            ((" left", "左边"), columns < -0.5),
            ((" right", "右边"), columns > 0.5),
        ):
            for word in words:
                table[..., self.text(word)[0]] += there.float()
        return table.flatten(0, 1)

    def opening(self, talk: Talk, tokens: int) -> list[int]:
        """The ids to the first answer: as in a runtime, all text between two special tokens is encoded in one."""
        shown = "".join(f"Picture {number}:{MARK}" for number in range(1, len(talk.pictures) + 1))
        asked = talk.turns[0].prompt
        both = f"{shown}{asked}" if talk.pictures_first else f"{asked}{shown}"
        head, *others = f"User: {both}\nAssistant: ".split(MARK)
        picture = (self.start, *[self.placeholder] * tokens, self.stop)
        return [self.begin, *self.text(head), *(id for text in others for id in (*picture, *self.text(text)))]

    def row(self, talk: Talk, tokens: int, columns: int) -> tuple[list[int], list[int], list[bool]]:
        """The ids of a talk as far as it goes in so many columns; what is to be written in their place; what of it is
        to be learned."""
        ids: list[int] = []
        targets: list[int] = []
        learned: list[bool] = []
        for number, turn in enumerate(talk.turns):
            past = number > 0 and turn.read_back
            said = turn.answer if past else ""
            asked = self.text(f"User: {turn.prompt}\nAssistant: {said}") if number else self.opening(talk, tokens)
            answer = () if past else self.text(turn.answer)
            if len(ids) + len(asked) + len(answer) + 1 > columns:
                break
            ids += [*asked, *answer, self.separator]
            targets += [*asked, *answer, self.end]
            learned += [False] * len(asked) + [not past] * (len(answer) + 1)
        return ids, targets, learned


def prepared_size(size: tuple[int, int]) -> tuple[int, int]:
    """The width and height that a picture of a size is brought to."""
    return size_of(*size, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)


def show(picture: Picture, width: int, height: int, rng: random.Random, *, noise: bool = True) -> Shown:
    """Draw a picture of a size and prepare it as a runtime does; now and then with `noise`."""
    image, places = draw(picture, width, height, rng)
    item = load_image(image, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    frames = noisy(item.frames, rng) if noise and rng.random() < NOISY_SHARE else item.frames
    return Shown(patch_rows(frames), *_lying(picture, places, frames.shape[1:3]))


def _lying(
    picture: Picture, places: Image.Image, size: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What covers the most of each patch, and in which colour; patches are in blocks of 2x2."""
    height, width = size
    rows, columns = height // TOKEN, width // TOKEN
    half = PATCH // 2  # every second pixel will do
    numbers = np.asarray(places.resize((width // 2, height // 2), Image.Resampling.NEAREST))
    patches = numbers.reshape(rows, 2, half, columns, 2, half).transpose(0, 3, 1, 4, 2, 5).reshape(-1, half * half)
    found = labels(picture)
    shares = (patches[:, :, None] == np.arange(1, len(found) + 1)).mean(1)
    best = shares.argmax(1)
    number = np.where(shares[np.arange(len(best)), best] >= COVERED, best + 1, 0)
    whats = np.array([0, *(WHATS.index(what) for what, _ in found)])
    hues = np.array([HUES.index(hue) for hue in (picture.background, *(hue for _, hue in found))])
    return whats[number], hues[number]


def sizes(rng: random.Random) -> Iterator[tuple[int, int]]:
    """Widths and heights of pictures that are all prepared to one size."""
    wide = rng.choice((1.0, 1.0, 1.0, 4 / 3, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3, 2.5))

    def draw_size(wide: float) -> tuple[int, int]:
        longest = round(math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST))))
        return (longest, round(longest / wide)) if wide > 1 else (round(longest * wide), longest)

    prepared = prepared_size(draw_size(wide))
    while True:
        size = draw_size(wide * rng.uniform(0.85, 1.15))
        if prepared_size(size) == prepared:
            yield size


def training_batch(encoder: Encoder, seed: int, step: int, rows: int, columns: int) -> Batch:
    """The batch of a step: it depends on nothing but its arguments."""
    rng = random.Random(f"{seed}/{step}")
    talks, shown = [], []
    for size in itertools.islice(sizes(rng), rows):
        talks.append(draw_any(rng, size[0] / size[1]))
        shown += [show(picture, *size, rng) for picture in talks[-1].pictures]
    return assemble(encoder, talks, shown, prepared_size(size), columns)


def training_sights(seed: int, step: int, count: int) -> Sights:
    """As many pictures, without a word about them, of a step that teaches the tower alone."""
    rng = random.Random(f"{seed}/{step}")
    shown = []
    for size in itertools.islice(sizes(rng), count):
        kind = rng.choices(list(SIGHT_SHARES), list(SIGHT_SHARES.values()))[0]
        shown += [show(picture, *size, rng) for picture in draw_pictures(rng, kind, "train", size[0] / size[1])]
    return sights(shown, prepared_size(size))


def sights(shown: Sequence[Shown], size: tuple[int, int]) -> Sights:
    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(each, name) for each in shown]))

    return Sights(stacked("patches"), stacked("whats"), stacked("hues"), (size[1] // TOKEN, size[0] // TOKEN))


def assemble(
    encoder: Encoder, talks: Sequence[Talk], shown: Sequence[Shown], size: tuple[int, int], columns: int
) -> Batch:
    """A batch of talks about pictures that were prepared to one size."""
    seen = sights(shown, size)
    tokens = seen.grid[0] * seen.grid[1]
    ids = torch.zeros(len(talks), columns, dtype=torch.long)
    targets, learned = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    positions = np.zeros((len(talks), columns, 3), np.int64)
    for row, talk in enumerate(talks):
        written = encoder.row(talk, tokens, columns)
        length = len(written[0])
        for tensor, values in zip((ids, targets, learned), written, strict=True):
            tensor[row, :length] = torch.tensor(values)
        starts = [i + 1 for i, id in enumerate(written[0]) if id == encoder.start]
        positions[row] = rope_positions(columns, [(start, (1, *seen.grid)) for start in starts])
    longest = int((ids != 0).any(0).sum())
    return Batch(
        ids[:, :longest], torch.from_numpy(positions)[:, :longest], targets[:, :longest], learned[:, :longest], seen
    )
