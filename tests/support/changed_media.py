"""Pictures and videos that were changed at random: of each format, in many kinds of colour and of writing."""

from __future__ import annotations

import random
from collections.abc import Iterator

from PIL import Image

from ernie_rt.vision.formats import Kind
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


def changed(kind: Kind, seed: int) -> Iterator[bytes]:
    """One after the other, for ever."""
    rng = random.Random(seed)
    sound = pictures() if kind == "picture" else videos()
    while True:
        form, whole = rng.choice(sound)
        data = mutated(whole, rng)
        yield sealed(data) if form == "PNG" and rng.random() < 0.7 else data
