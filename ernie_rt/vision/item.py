"""A picture or video as a model gets it: resized pixels, how many tokens they are, and what they are known by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ernie_rt.vision.grid import PATCH, TOKEN, Grid, check_patches, merged, patches_of, tokens_of
from ernie_rt.vision.patches import vision_inputs


@dataclass(frozen=True, slots=True)
class Origin:
    """What a picture or video was made from: the SHA-256 of the file (None where it was none), the width and height
    that it had, and the limits and rates `asked` for, as `load_image` and `load_video` are told them."""

    file: str | None
    size: tuple[int, int]
    asked: Mapping[str, int | float]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A picture or video, ready for the vision tower.

    `frames [t, H, W, 3]` are red, green and blue, whose sides are multiples of 28: one frame of a picture, an even
    number of a video. `digest` is the SHA-256 of kind, shape and pixels: what has the same gives the same features.
    `note` is what a person should know, such as that it was made smaller.
    """

    kind: Literal["image", "video"]
    frames: npt.NDArray[np.uint8]
    digest: bytes
    note: str = ""
    origin: Origin | None = None

    @classmethod
    def of(
        cls,
        kind: Literal["image", "video"],
        frames: npt.NDArray[np.uint8],
        note: str = "",
        origin: Origin | None = None,
    ) -> Item:
        """One of these pixels, which nobody may change from then on."""
        t, height, width, channels = frames.shape
        assert frames.dtype == np.uint8 and channels == 3 and height % TOKEN == width % TOKEN == 0
        assert t == 1 if kind == "image" else t % 2 == 0 and t > 0
        frames = np.ascontiguousarray(frames)
        frames.flags.writeable = False
        digest = hashlib.sha256(f"{kind} {frames.shape} ".encode())
        digest.update(frames.data)
        return cls(kind, frames, digest.digest(), note, origin)

    @property
    def grid(self) -> Grid:
        """Frames, rows and columns in patches."""
        t, height, width, _ = self.frames.shape
        return t, height // PATCH, width // PATCH

    @property
    def merged(self) -> Grid:
        """Frames, rows and columns in tokens."""
        return merged(self.grid)

    @property
    def tokens(self) -> int:
        """How many placeholders stand for it in a prompt, and how many features the tower gives."""
        return tokens_of(self.grid)

    def pieces(self, max_patches: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The inputs of the graph `vision`, in pieces of at most so many patches, whose features follow one another.

        A piece is a whole picture or whole pairs of frames, since a frame's patches attend to one another: MediaError
        where one of these has more.
        """
        t, least = len(self.frames), patches_of(self.grid)
        check_patches(least, max_patches)
        step = max_patches // least * min(t, 2)
        return (vision_inputs(self.frames[start : start + step]) for start in range(0, t, step))
