"""Many thousands of pictures and videos that were changed at random: read, or refused by a MediaError, and soon."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from PIL import Image

from ernie_rt.errors import MediaError
from ernie_rt.vision.decoding import MEMORY_BYTES, PROGRAM
from ernie_rt.vision.formats import HEAD_BYTES, Kind, format_of
from ernie_rt.vision.frames import chosen_frames
from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS, size_of
from ernie_rt.vision.image import check_size, load_image
from ernie_rt.vision.item import Item
from ernie_rt.vision.timestamps import timestamp
from ernie_rt.vision.video import load_video
from ernie_rt.worker import Worker, folders_of
from support.media import chunk, noise, picture, video


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, a piece left out, doubled or overwritten, or the end cut off."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 256))
        kind = rng.randrange(12)
        if kind < 9:
            data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 9:
            data[at : at + length] = rng.choice((b"", bytes(length), b"\xff" * length, rng.randbytes(length)))
        elif kind == 10:
            data[at:at] = data[at : at + length]
        else:
            del data[rng.randrange(len(data)) :]
            break
    return bytes(data)


def sealed(data: bytes) -> bytes:
    """A PNG whose chunks have the sums that belong to them, so that more than the sums are looked at."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : end]))
        at = end + 4
    return b"".join(parts)


def pictures() -> list[tuple[str, bytes]]:
    """Small ones of each format, in many kinds of colour and of writing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    base, moving = Image.fromarray(noise(30, 40)), [Image.fromarray(noise(30, 40, seed=n)) for n in range(3)]
    smooth = base.resize((60, 45), Image.Resampling.BICUBIC)
    return [
        *(("PNG", picture(smooth.convert(mode), "PNG", exif=exif)) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")),
        ("PNG", picture(moving[0], "PNG", save_all=True, append_images=moving[1:])),
        *(("JPEG", picture(smooth, "JPEG", exif=exif, progressive=each, icc_profile=b"x" * 99)) for each in (0, 1)),
        *(("JPEG", picture(smooth.convert(mode), "JPEG")) for mode in ("L", "CMYK")),
        ("WEBP", picture(smooth, "WEBP", exif=exif)),
        ("WEBP", picture(smooth.convert("RGBA"), "WEBP", lossless=True)),
        ("WEBP", picture(moving[0], "WEBP", save_all=True, append_images=moving[1:])),
        ("GIF", picture(smooth, "GIF")),
        ("GIF", picture(moving[0], "GIF", save_all=True, append_images=moving[1:])),
    ]


def videos() -> list[tuple[str, bytes]]:
    """Short ones of each container and most codecs."""
    frames = [noise(6, 8, seed=n).repeat(8, 0).repeat(8, 1) for n in range(6)]
    return [
        (form, video(frames, form, codec))
        for form, codec in [
            ("mp4", "libx264"), ("mp4", "mpeg4"), ("mov", "libx265"), ("matroska", "libx264"), ("matroska", "mjpeg"),
            ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("avi", "mjpeg"), ("avi", "mpeg4"),
        ]
    ]  # fmt: skip


class Child:
    """The process that decodes, asked for one picture or video after the other."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        limits = [str(MEMORY_BYTES), "600", "3"]
        self._worker = Worker(["-c", PROGRAM], [kind, *limits, *folders_of("ernie_rt", "PIL", "av")], "decode", "")

    def load(self, data: bytes) -> str:
        """What `load_image` and `load_video` do, without a process for each: nothing, or why it is refused."""
        try:
            given = {"format": format_of(data[:HEAD_BYTES], self._kind, None), "threads": 4}
            about = self._ask({"open": given}, data)
            if self._kind == "picture":
                self._ask({"size": check_size(about["size"], None, MIN_PIXELS, MAX_PIXELS)})
            else:
                size = size_of(*about["size"], max_pixels=28**2)
                chosen = chosen_frames(about["frames"], about["fps"])
                for index in chosen:
                    self._ask({"size": size, "index": index, "chosen": chosen, "text": timestamp(index / about["fps"])})
        except MediaError as error:
            return str(error)
        return ""

    def end(self) -> None:
        self._worker.end()

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
        taken, answer = self._worker.ask(json.dumps(request).encode() + b"\n" + data, 30, 1 << 28)
        assert taken and answer is not None, self._worker.end()
        told: dict[str, Any] = json.loads(answer.partition(b"\n")[0])
        if "error" in told:
            raise MediaError("broken", found=told["error"])
        return told


def changed(kind: Kind, seed: int) -> Iterator[bytes]:
    """One after the other, for ever."""
    rng = random.Random(seed)
    sound = pictures() if kind == "picture" else videos()
    while True:
        form, whole = rng.choice(sound)
        data = mutated(whole, rng)
        yield sealed(data) if form == "PNG" and rng.random() < 0.7 else data


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "seed", "count", "seconds"),
    [*(("picture", seed, 5000, 1.0) for seed in range(20)), *(("video", seed, 500, 20.0) for seed in range(4))],
)
def test_thousands_of_changed_ones(kind: Kind, seed: int, count: int, seconds: float) -> None:
    child = Child(kind)
    refused, slowest = 0, 0.0
    try:
        for data in islice(changed(kind, seed), count):
            began = time.monotonic()
            refused += bool(child.load(data))
            slowest = max(slowest, time.monotonic() - began)
    finally:
        child.end()
    print(f"{refused} of {count} are refused, the slowest took {slowest:.2f} s")
    assert slowest < seconds and 0.1 * count < refused < 0.95 * count


@pytest.mark.long
@pytest.mark.parametrize(("kind", "load", "count"), [("picture", load_image, 300), ("video", load_video, 60)])
def test_hundreds_in_a_process_each(kind: Kind, load: Callable[[bytes], Item], count: int) -> None:
    for data in islice(changed(kind, 99), count):
        try:
            load(data)
        except MediaError as error:
            assert "ends the process" not in str(error), data
