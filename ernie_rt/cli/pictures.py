"""Pictures and videos on a command line: what was given, and what is said of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ernie_rt.cli.output import say
from ernie_rt.errors import OptionError

if TYPE_CHECKING:
    from ernie_rt.text.media import Media
    from ernie_rt.vision.item import Item


@dataclass(frozen=True, slots=True)
class Sight:
    """How pictures and videos are to be looked at, where somebody said so."""

    max_pixels: int | None = None
    fps: float | None = None
    max_frames: int | None = None

    def media(self, images: Sequence[str] | None, videos: Sequence[str] | None) -> list[Media]:
        """The pictures, then the videos, of these paths; OptionError for an option that none of them takes."""
        for option, given, about, name in (
            ("--max-pixels", self.max_pixels, images, "--image"),
            ("--fps", self.fps, videos, "--video"),
            ("--max-frames", self.max_frames, videos, "--video"),
        ):
            if given is not None and not about:
                raise OptionError(f"{option} is about {name}, and there is none", hint=f"Add {name} FILE")
        return [*map(self.image, images or ()), *map(self.video, videos or ())]

    def image(self, path: str) -> Media:
        """MediaError for an address."""
        from ernie_rt.text.media import Media
        from ernie_rt.vision.sources import path_of

        return Media("image", path_of(path), max_pixels=self.max_pixels)

    def video(self, path: str) -> Media:
        """MediaError for an address."""
        from ernie_rt.text.media import Media
        from ernie_rt.vision.sources import path_of

        return Media("video", path_of(path), fps=self.fps, max_frames=self.max_frames)


def typed_path(text: str) -> str:
    """A path as somebody typed it, or as a terminal writes what is dropped on it: in quotes, or with backslashes."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 and not os.path.lexists(text) else text


def most_patches(items: Iterable[Item]) -> int:
    """How many patches a step has to take in, that these may be encoded."""
    from ernie_rt.vision.grid import patches_of

    return max((patches_of(item.grid) for item in items), default=1)


def say_items(named: Iterable[tuple[str, Item]], *, verbose: bool) -> None:
    """Say what a person should know of pictures; all that is known of each, when `verbose`."""
    for name, item in named:
        if verbose:
            say(f"{name}: {shown(item)}")
        if item.note:
            say(f"{name}: {item.note}")


def shown(item: Item) -> str:
    """`644x476 pixels, 46x34 patches, 391 tokens`"""
    frames, height, width, _ = item.frames.shape
    _, rows, columns = item.grid
    several = f"{frames} frames of " if item.kind == "video" else ""
    return f"{several}{width}x{height} pixels, {columns}x{rows} patches, {item.tokens:,} tokens"
