"""The pictures and videos of a receipt's prompt: what it says of them, and how they are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt.vision.grid import PATCH, Grid, merged

if TYPE_CHECKING:
    from ernie_rt.runtime.items import Encodable
    from ernie_rt.vision.item import Item

Kind = Literal["image", "video"]
LIBRARIES: Final[Mapping[Kind, tuple[str, ...]]] = {"image": ("pillow",), "video": ("pillow", "av")}
"""What decides the pixels beside ernie-rt: distributions by what they prepare."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture or video of a prompt, whose tokens begin at `start`; never the pixels themselves.

    `file` is the SHA-256 of the bytes that it was given as, None where those were no file's; `given` the width and
    height that it had, `asked` the limits and rates that it was prepared by, and `by` the libraries that did it.
    `pixels` is the digest of what the model got of it, in so many `frames` of width and height `size`.
    """

    kind: Kind
    start: int
    file: str | None
    given: tuple[int, int]
    asked: Mapping[str, int | float]
    by: tuple[str, ...]
    frames: int
    size: tuple[int, int]
    pixels: str

    @classmethod
    def of(cls, start: int, item: Encodable) -> Shown:
        """What a receipt says of an item; OptionError for one that was made by hand."""
        from ernie_rt.vision.item import Item

        if not isinstance(item, Item) or item.origin is None:
            raise OptionError(
                "there is no receipt of a picture that nothing is known of but its pixels",
                found=f"one of {item.tokens} tokens",
                hint="Give the file, its bytes or an array in its place",
            )
        frames, height, width, _ = item.frames.shape
        origin = item.origin
        return cls(
            item.kind, start, origin.file, origin.size, dict(origin.asked), libraries(item.kind), frames,
            (width, height), item.digest.hex(),
        )  # fmt: skip

    @property
    def grid(self) -> Grid:
        """In tokens."""
        return merged((self.frames, self.size[1] // PATCH, self.size[0] // PATCH))

    @property
    def tokens(self) -> int:
        frames, rows, columns = self.grid
        return frames * rows * columns

    def __str__(self) -> str:
        frames = "" if self.kind == "image" else f", {self.frames} frames looked at"
        name = "no file" if self.file is None else f"sha256 {self.file}"
        return f"{self.kind} of {self.given[0]}x{self.given[1]}{frames}, {name}"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "start": self.start,
            "file": self.file,
            "given": list(self.given),
            "asked": dict(self.asked),
            "by": list(self.by),
            "frames": self.frames,
            "size": list(self.size),
            "pixels": self.pixels,
        }


def libraries(kind: Kind) -> tuple[str, ...]:
    """The versions of what prepares a picture or a video here."""
    found = []
    for name in LIBRARIES[kind]:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return tuple(found)


def find_again(shown: Sequence[Shown], sources: Sequence[Path | Item]) -> tuple[tuple[int, Item], ...]:
    """The pictures and videos of a receipt, prepared anew from these files, each behind the place where it begins.

    A file is known by its digest, whatever its name; what was no file, by its pixels, as an item. OptionError names
    those that are missing, FileFormatError one that becomes other pixels than those of the receipt.
    """
    from ernie_rt.vision.image import load_image
    from ernie_rt.vision.sources import digest_of
    from ernie_rt.vision.video import load_video

    files = {digest_of(source): source for source in sources if isinstance(source, Path)}
    items = {source.digest.hex(): source for source in sources if not isinstance(source, Path)}
    missing = [each for each in shown if each.file not in files and each.pixels not in items]
    if missing:
        raise OptionError(
            "the receipt is of a prompt with pictures or videos that were not given",
            expected="; ".join(f"{number}. {each}" for number, each in enumerate(shown, 1) if each in missing),
            found=f"{len(sources)} files, none of which is one of these" if sources else None,
            hint="Give the files: `ernie-rt replay RECEIPT --file FILE`, once for each"
            if any(each.file for each in missing)
            else "What was no file can be given from Python alone",
        )
    found = []
    for each in shown:
        item = items.get(each.pixels)
        if item is None:
            assert each.file is not None
            load: Any = load_image if each.kind == "image" else load_video
            item = load(files[each.file], **each.asked)
        if item.digest.hex() != each.pixels:
            raise FileFormatError(
                f"the {each.kind} becomes other pixels here than those of the receipt",
                where=str(files.get(each.file or "", "an item")),
                expected=f"{each.pixels[:12]}, by {', '.join(each.by) or 'unknown libraries'}",
                found=f"{item.digest.hex()[:12]}, by {', '.join(libraries(each.kind))}",
                hint="Install the versions that the receipt names",
            )
        found.append((each.start, item))
    return tuple(found)
