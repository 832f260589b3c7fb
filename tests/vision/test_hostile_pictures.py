"""Pictures that were made to do harm, or are broken: a MediaError each, before decoding where a header is enough."""

from __future__ import annotations

import struct
import time
import zlib
from types import SimpleNamespace

import pytest

from ernie_rt.errors import MediaError
from ernie_rt.vision import decoding, image
from ernie_rt.vision.image import load_image
from support.media import chunk, noise, picture, png, progressive

SMALL = zlib.compress(bytes(31 * 10))
SOUND = noise(40, 60)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "expected PNG, JPEG, WebP or GIF; found an empty file"),
        (b"\x00\x01\x02" * 30, "found a file that begins with '.x00.x01.x02"),
        (picture(SOUND, "TIFF"), "found TIFF. Convert it to PNG or JPEG"),
        (picture(SOUND, "BMP"), "found BMP"),
        (picture(SOUND, "AVIF"), "found AVIF"),
        (picture(SOUND, "JPEG2000"), "found JPEG 2000"),
        (b"\0\0\0\x20ftypheic" + bytes(99), "found HEIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "found SVG or XML"),
        (b"%PDF-1.7", "found PDF"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "found mov"),
    ],
)
def test_other_formats_are_refused_by_their_names(data: bytes, why: str) -> None:
    with pytest.raises(MediaError, match=f"^no picture that is read here; .*{why}"):
        load_image(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png(100_000, 100_000), "at most 64 megapixels, and 32768 pixels on a side; found 100000x100000"),
        (png(65_535, 1000, depth=1, color=0), "found 65535x1000"),
        (png(1, 201), "at most 200 times as long as wide; found 1x201"),
        (png(0, 10), "a broken header"),
        (progressive(65_000, 65_000, 1), "found 65000x65000"),
        (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0), "found"),
        (b"\x89PNG\r\n\x1a\n", "a broken header"),
        (b"\xff\xd8\xff", "a broken header"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "cannot be read"),
        (bytes(33 << 20), "at most 32.0 MiB; found 33.0 MiB"),
        (picture(SOUND)[:-500], "image file is truncated"),
        (picture(SOUND, "JPEG")[:-100], "image file is truncated"),
        (picture(SOUND, "WEBP")[:-100], "cannot be read"),
        (picture(SOUND, "GIF")[:-500], "image file is truncated"),
        (
            png(10, 10, bytes(310), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7)))),
            "Decompressed data too large",
        ),
        (
            png(10, 10, bytes(310), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**7)))),
            "Decompressed data too large",
        ),
    ],
)
def test_broken_ones_and_bombs(data: bytes, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(MediaError, match=why):
        load_image(data)
    assert time.monotonic() - began < 5


def test_more_rows_than_a_header_says_are_not_unpacked() -> None:
    assert load_image(png(10, 10, bytes(10**7))).grid == (1, 4, 4)


def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scan after scan over 16 megapixels, in some kilobytes."""
    monkeypatch.setattr(image, "CPU_SECONDS", 1)
    with pytest.raises(
        MediaError, match=r"the picture takes too long to decode; expected at most 1 s of computing. Make it smaller"
    ):
        load_image(progressive(4096, 4096, 5000))


def test_what_takes_too_much_memory_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MEMORY_BYTES", 300 << 20)
    with pytest.raises(MediaError, match="the picture cannot be read; found more memory needed"):
        load_image(progressive(8192, 8192, 1))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0" + bytes(range(256)) * 200, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9999]
)
def test_nonsense_beside_a_picture_is_no_matter(exif: bytes) -> None:
    assert load_image(picture(SOUND, "JPEG", exif=exif)).grid == (1, 4, 6)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"1\n", b"[" * 99_999 + b"\n", b'{"size": 7}\n', b'{"size": [6, -4]}\n', b'{"size": ["6", 4]}\n',
        b'{"size": [28, 28], "frames": 0}\n', b'{"size": [28, 28], "fps": NaN}\n', b'{"size": [28, 28, 3]}\n',
        b'{"error": 5}\n', b'{"size": [28, 28]}\n' + bytes(7), b'{"size": [56, 56]}\n' + bytes(3 * 56 * 56),
    ],
)  # fmt: skip
def test_a_process_that_a_picture_has_taken_over_is_not_believed(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = SimpleNamespace(ask=lambda request, seconds, most: (True, answer), end=lambda: (False, 0))
    monkeypatch.setattr(decoding, "Worker", lambda *_: taken)
    with pytest.raises(MediaError, match="the process that decodes the picture answers nonsense"):
        load_image(picture(SOUND), min_pixels=28 * 28, max_pixels=28 * 28)
