"""Videos from files, bytes and arrays: frames of them with their times, made the size that the model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import MediaError
from ernie_rt.files import MIB
from ernie_rt.vision.decoding import Decoding, need
from ernie_rt.vision.formats import HEAD_BYTES, format_of
from ernie_rt.vision.frames import FPS, MAX_FRAMES, MIN_FRAMES, check_rate, chosen_frames
from ernie_rt.vision.grid import TOKEN, VIDEO_MAX_PIXELS, VIDEO_MIN_PIXELS, size_of
from ernie_rt.vision.item import Item, Origin
from ernie_rt.vision.sources import beginning, check_array, check_bytes, digest_of, path_of
from ernie_rt.vision.timestamps import timestamp

Frames = npt.NDArray[np.uint8]
VideoSource = str | Path | bytes | Frames

MAX_BYTES: Final = 512 * MIB
SECONDS: Final = 60.0
THREADS: Final = 4
"""That decode."""


def load_video(
    source: VideoSource,
    *,
    fps: float = FPS,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
    min_pixels: int = VIDEO_MIN_PIXELS,
    max_pixels: int = VIDEO_MAX_PIXELS,
    seconds: float = SECONDS,
    announce: Callable[[int], object] = lambda tokens: None,
) -> Item:
    """A video as the model gets it: `chosen_frames` of it, each with its time in the corner, resized like pictures.

    `source` is the path of a file or its bytes (MP4, MOV, Matroska, WebM or AVI), or frames that somebody has chosen,
    an array of bytes `[frames, height, width, 3]` at `fps` frames a second. `min_pixels` and `max_pixels` are those of
    a frame; the latter outranks the former, as `max_frames` does `min_frames`. A video that is less
    than one step of 1 / `fps` seconds longer than `max_frames` of them has one frame more. Of an odd number of frames
    the last is there twice. `announce` is told how many tokens it will have before a frame is decoded, and may raise.

    Files and bytes are decoded in a child process. MediaError where the source is no video that is read here, is
    broken, or over a limit: 512 MiB, 4 hours, frames of 4096x2304 pixels, `seconds` to decode.
    """
    check_rate(fps, min_frames, max_frames)
    rule = {"fps": fps, "min_frames": min(min_frames, max_frames), "max_frames": max_frames}
    pixels = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    if isinstance(source, np.ndarray):
        check_array(source, "[frames, height, width, 3]")
        return _item(_Array(source, fps), None, rule, pixels, announce, None)
    data, where, given = b"", None, dict[str, Any](threads=THREADS)
    if isinstance(source, bytes):
        data = source
        check_bytes(len(data), "video", where, MAX_BYTES)
        file = hashlib.sha256(data).hexdigest()
        head = data[:HEAD_BYTES]
    elif isinstance(source, str | Path):
        path = path_of(source)
        where, given["path"] = str(path), str(path.absolute())
        head = beginning(path, "video", MAX_BYTES)
        file = digest_of(path)
    else:
        raise MediaError("no video", expected="a path, bytes or an array", found=f"a {type(source).__name__}")
    given["format"] = format_of(head, "video", where)
    with Decoding("video", where, given, data, seconds=seconds, cpu_seconds=ceil(THREADS * seconds)) as decoding:
        return _item(decoding, where, rule, pixels, announce, file)


class _Opened(Protocol):
    """Frames of which some are to be chosen: how many there are (`frames`), how many a second (`fps`), their `size`."""

    @property
    def about(self) -> Mapping[str, Any]: ...

    def pixels(self, size: tuple[int, int], *, index: int, text: str, chosen: Sequence[int]) -> Frames:
        """One of the chosen frames in another size, `[height, width, 3]`, with a text in its corner; indices ascend."""


class _Array:
    """Frames in memory."""

    def __init__(self, frames: Frames, fps: float) -> None:
        need("PIL")
        count, height, width, _ = frames.shape
        self._frames = frames
        self.about: Mapping[str, Any] = {"frames": count, "fps": fps, "size": (width, height)}

    def pixels(self, size: tuple[int, int], *, index: int, text: str, chosen: Sequence[int]) -> Frames:
        from PIL import Image

        from ernie_rt.vision.decoder import to_size
        from ernie_rt.vision.drawing import draw_timestamp

        image = Image.fromarray(self._frames[index])
        draw_timestamp(image, text)
        return np.frombuffer(to_size(image, size), np.uint8).reshape(size[1], size[0], 3)


def _item(
    opened: _Opened,
    where: str | None,
    rule: Mapping[str, Any],
    pixels: Mapping[str, int],
    announce: Callable[[int], object],
    file: str | None,
) -> Item:
    count, rate = opened.about["frames"], opened.about["fps"]
    width, height = size_of(*opened.about["size"], **pixels, where=where)
    chosen = chosen_frames(count, rate, **rule)
    announce(-(-len(chosen) // 2) * height * width // TOKEN**2)
    frames = np.empty((len(chosen) + len(chosen) % 2, height, width, 3), np.uint8)
    for row, index in enumerate(chosen):
        frames[row] = opened.pixels((width, height), index=index, text=timestamp(index / rate), chosen=chosen)
    if len(chosen) % 2:
        frames[-1] = frames[-2]
    origin = Origin(file, tuple(opened.about["size"]), {**rule, **pixels})
    return Item.of("video", frames, _note(chosen, count, rate), origin)


def _note(chosen: list[int], count: int, rate: float) -> str:
    """What to say of a video of which less is seen than two frames of each second."""
    if len(chosen) == count or len(chosen) >= int(FPS * count / rate):
        return ""
    return f"{len(chosen)} frames were taken from {count / rate:.0f} s: what is short may be missed"
