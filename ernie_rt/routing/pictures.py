"""Pictures and frames of videos, small, to be shown behind the tokens that they became."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ernie_rt.vision.grid import TOKEN
from ernie_rt.vision.item import Item

MOST_FRAMES: Final = 8
"""How many of a video are shown."""
LONGEST_SIDE: Final = 448
"""Pixels that a side of what is shown has at most."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture or video whose tokens begin at `start`: `rows` and `columns` of them, each of 28 by 28 pixels, in each
    frame of a picture or pair of frames of a video.

    `shown` are the first frames as JPEG, one of each pair of a video.
    """

    kind: str
    start: int
    frames: int
    rows: int
    columns: int
    shown: tuple[bytes, ...]

    @classmethod
    def of(cls, start: int, item: Item) -> Picture:
        from PIL import Image

        frames, rows, columns = item.merged
        shown = []
        for pixels in item.frames[:: max(1, len(item.frames) // frames)][:MOST_FRAMES]:
            image = Image.fromarray(pixels)
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=75)
            shown.append(out.getvalue())
        return cls(item.kind, start, frames, rows, columns, tuple(shown))

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "start": self.start, "grid": [self.frames, self.rows, self.columns]}

    def svgs(self) -> list[str]:
        """Each shown frame as an SVG in pixels of the prepared picture, with a place for its tokens."""
        width, height = self.columns * TOKEN, self.rows * TOKEN
        per_frame = self.rows * self.columns
        encoded = [base64.b64encode(jpeg).decode() for jpeg in self.shown]
        return [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{self._name(number)}">'
            f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{jpeg}"/>'
            f'<g class="patches" data-start="{self.start + number * per_frame}" data-count="{per_frame}" '
            f'data-columns="{self.columns}" data-side="{TOKEN}"></g></svg>'
            for number, jpeg in enumerate(encoded)
        ]

    @property
    def caption(self) -> str:
        tokens = self.frames * self.rows * self.columns
        size = f"{self.columns * TOKEN}x{self.rows * TOKEN}"
        what = f"a picture of {size}" if self.kind == "image" else f"a video of {self.frames} pairs of frames of {size}"
        more = self.frames - len(self.shown)
        left = f"; {more} pairs of frames are not shown" if more > 0 else ""
        return f"{what}, resized: tokens {self.start} to {self.start + tokens - 1}{left}"

    def _name(self, number: int) -> str:
        return "the picture" if self.kind == "image" else f"the video at its pair of frames {number}"


def pictures_of(placed: Sequence[tuple[int, Item]]) -> tuple[Picture, ...]:
    """Those of a prompt, each behind the place at which its tokens begin."""
    return tuple(Picture.of(start, item) for start, item in placed)
