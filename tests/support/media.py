"""Pictures and videos, made on the spot: sound ones, and ones that nobody would send who meant well."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


ENCODERS = {
    "libx264": {"preset": "ultrafast", "x264-params": "log-level=none:bframes=2:b-adapt=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def noise(height: int, width: int, *more: int, seed: int = 0) -> Pixels:
    """`[height, width, 3]`, or of several frames."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *more, 3), dtype=np.uint8)


def picture(image: Image.Image | Pixels, form: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One of those that a PNG is made of."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"", *more: bytes, depth: int = 8, color: int = 2) -> bytes:
    """A PNG that says it is so large, with these rows, and other chunks in front of them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND")


def progressive(width: int, height: int, scans: int) -> bytes:
    """A JPEG that says it is so large, whose last scan comes so many times."""
    data = bytearray(picture(Image.new("L", (64, 64)), "JPEG", progressive=True))
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", height, width)
    last = bytes(data).rindex(b"\xff\xda")
    return bytes(data[:last] + data[last:-2] * scans + data[-2:])


def video(
    frames: int | Sequence[Pixels] = 20,
    form: str = "mp4",
    codec: str = "mpeg4",
    *,
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 10,
    times: Sequence[int] | None = None,
    sound: bool = False,
    turned: int = 0,
) -> bytes:
    """A video of so many frames, of which frame n is of the grey level 10 n, or of frames of one's own."""
    file = io.BytesIO()
    drawn = (
        [np.full((size[1], size[0], 3), 10 * n % 256, np.uint8) for n in range(frames)]
        if isinstance(frames, int)
        else list(frames)
    )
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = drawn[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = 12
        stream.options = ENCODERS.get(codec, {})
        other = container.add_stream("pcm_s16le" if form == "matroska" else "aac", rate=8000) if sound else None
        for n, pixels in enumerate(drawn):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = n if times is None else times[n]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if other is not None:
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
            heard.sample_rate = 8000
            container.mux(other.encode(heard))
            container.mux(other.encode(None))
    return file.getvalue()


def sound(form: str = "mp4") -> bytes:
    """A file without pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("aac", rate=44100)
        for n in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, n * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
