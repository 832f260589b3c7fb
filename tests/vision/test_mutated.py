"""Many thousands of pictures and videos that were changed at random: read, or refused by a MediaError, and soon."""

from __future__ import annotations

import json
import random
import time

import pytest
from PIL import Image

from ernie_rt.errors import MediaError
from ernie_rt.vision.decoding import MEMORY_BYTES, PROGRAM
from ernie_rt.vision.formats import HEAD_BYTES, format_of
from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS
from ernie_rt.vision.image import check_size
from ernie_rt.vision.video import load_video
from ernie_rt.worker import Worker, folders_of
from support.media import chunk, noise, picture, video

SECONDS = 1.0
"""For a picture."""


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


def videos() -> list[bytes]:
    """Short ones of each container and most codecs."""
    frames = [noise(6, 8, seed=n).repeat(8, 0).repeat(8, 1) for n in range(6)]
    return [
        video(frames, form, codec)
        for form, codec in [
            ("mp4", "libx264"), ("mp4", "mpeg4"), ("mov", "libx265"), ("matroska", "libx264"), ("matroska", "mjpeg"),
            ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("avi", "mjpeg"), ("avi", "mpeg4"),
        ]
    ]  # fmt: skip


class Child:
    """The process that decodes, asked for one picture after the other."""

    def __init__(self) -> None:
        limits = [str(MEMORY_BYTES), "600", "3"]
        self._worker = Worker(["-c", PROGRAM], ["picture", *limits, *folders_of("ernie_rt", "PIL")], "decode", "")

    def load(self, data: bytes) -> str:
        """What `load_image` does, without a process for each: nothing, or why it refuses."""
        try:
            told = self._ask({"open": {"format": format_of(data[:HEAD_BYTES], "picture", None)}}, data)
            if "error" not in told:
                size = check_size(told["size"], None, MIN_PIXELS, MAX_PIXELS)
                told = self._ask({"size": size}, b"")
        except MediaError as error:
            return str(error)
        return str(told.get("error", ""))

    def end(self) -> None:
        self._worker.end()

    def _ask(self, request: dict[str, object], data: bytes) -> dict[str, object]:
        taken, answer = self._worker.ask(json.dumps(request).encode() + b"\n" + data, 30, 1 << 28)
        assert taken and answer is not None, self._worker.end()
        told: dict[str, object] = json.loads(answer.partition(b"\n")[0])
        return told


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_five_thousand_pictures(seed: int) -> None:
    rng = random.Random(seed)
    sound = pictures()
    child = Child()
    refused, slowest = 0, 0.0
    try:
        for _ in range(5000):
            form, whole = rng.choice(sound)
            data = mutated(whole, rng)
            if form == "PNG" and rng.random() < 0.7:
                data = sealed(data)
            began = time.monotonic()
            why = child.load(data)
            took = time.monotonic() - began
            refused += bool(why)
            slowest = max(slowest, took)
            assert took < SECONDS, (took, why, data)
    finally:
        child.end()
    print(f"seed {seed}: {refused} of 5000 refused, slowest {slowest:.2f} s")
    assert 500 < refused < 4900


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_videos(seed: int) -> None:
    rng = random.Random(seed)
    sound = videos()
    refused, slowest = 0, 0.0
    for _ in range(100):
        data = mutated(rng.choice(sound), rng)
        began = time.monotonic()
        try:
            load_video(data, min_pixels=0)
        except MediaError as error:
            refused += 1
            assert "ends the process" not in str(error), (error, data)
        slowest = max(slowest, time.monotonic() - began)
    print(f"seed {seed}: {refused} of 100 refused, slowest {slowest:.2f} s")
    assert slowest < 60
