"""Pictures and videos in messages, and the strings that stand for them in what a template writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ernie_rt.display import shown
from ernie_rt.errors import PromptError

Kind = Literal["image", "video"]

PLACEHOLDERS: Final[Mapping[str, Kind]] = {
    "<|image@placeholder|>": "image",
    "<|video@placeholder|>": "video",
    "<|IMAGE_PLACEHOLDER|>": "image",
    "<|VIDEO_PLACEHOLDER|>": "video",
}
"""What stands for a picture or a video: strings that are no tokens in Baidu's templates, tokens in transformers'."""
OPTIONS: Final[Mapping[Kind, tuple[str, ...]]] = {"image": ("max_pixels",), "video": ("fps", "max_frames")}
"""What a part may say beside its source."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Media:
    """A picture or a video in a message. What is computed of one is computed once for each such object.

    `source` is what `ernie_rt.vision.load_image` or `load_video` takes, but for text; or an Item that one of them gave.
    `max_pixels` bounds a picture's size, `fps` and `max_frames` say how many frames of a video are looked at.
    """

    kind: Kind
    source: Any
    max_pixels: int | None = None
    fps: float | None = None
    max_frames: int | None = None

    def __repr__(self) -> str:  # a source may be large
        return f"<Media {self.kind}{f' {self.source}' if isinstance(self.source, os.PathLike) else ''}>"


def parse_media(part: Mapping[str, Any], kind: Kind, where: str) -> Media:
    """A content part of this type; PromptError for one that is wrong. What is in its source is not looked at."""
    source, options = part.get(kind), OPTIONS[kind]
    if source is None or isinstance(source, str | Mapping | list | tuple | int | float):
        hint = "For a file give pathlib.Path(…); nothing is fetched from an address"
        raise PromptError(
            f"a part of type {kind} has no {kind}",
            where=where,
            expected=f'"{kind}": a Path, the bytes of a file, or an array',
            found=type(source).__name__,
            hint=hint if isinstance(source, str) else None,
        )
    unknown = sorted(str(key) for key in part.keys() - {"type", kind, *options})
    if unknown:
        raise PromptError(
            f"a part of type {kind} has no such field", where=where, expected=", ".join(options), found=unknown[0][:40]
        )
    given = {name: part[name] for name in options if part.get(name) is not None}
    for name, value in given.items():
        whole = name != "fps"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not 0 < value < 2**31:
            expected = "a whole number above 0" if whole else "a number above 0"
            raise PromptError(f"{name} is not possible", where=where, expected=expected, found=shown(value))
    return Media(kind, source, **given)
