"""Pictures from whatever they are given as: the same pixels, upright, in the model's size."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ernie_rt.errors import ErnieRtError, MediaError
from ernie_rt.vision import decoding
from ernie_rt.vision.grid import CPU_PIXELS
from ernie_rt.vision.image import load_image
from support.media import noise, picture


def test_one_picture_whatever_it_is_given_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(120, 160)
    data = picture(pixels)
    (tmp_path / "图 1.png").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    lazy = Image.open(io.BytesIO(data))
    given = [pixels, Image.fromarray(pixels), lazy, data, tmp_path / "图 1.png", "图 1.png"]
    assert len({load_image(each).digest for each in given}) == 1
    expected = Image.fromarray(pixels).resize((168, 112), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(load_image(pixels).frames[0], np.asarray(expected))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_photographs_are_turned_upright(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, clockwise, for whoever looks at it
    stored = np.zeros((56, 112, 3), np.uint8)
    stored[:28] = 255
    image = load_image(picture(stored, form, exif=exif))
    assert image.grid == (1, 8, 4)
    assert image.frames[0, :, 40:].mean() > 240 and image.frames[0, :, :16].mean() < 15


def test_arrays_and_pillow_images_are_taken_as_they_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(picture(noise(56, 112), "JPEG", exif=exif)))
    assert load_image(opened).grid == (1, 4, 8)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 0), (100, 100, 100)),
        ("P", 1, (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("I;16", 100 * 256 + 255, (100, 100, 100)),
    ],
)
def test_every_kind_of_colour(mode: str, color: int, expected: tuple[int, int, int]) -> None:
    image = Image.new(mode, (56, 56), color)
    options = {}
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 20, 30])
        options = {"transparency": b"\0\0"}
    opened = Image.open(io.BytesIO(picture(image, **options)))
    for source in (picture(image, **options), opened):
        assert (load_image(source).frames == np.array(expected)).all()
    assert mode != "P" or "transparency" in opened.info, "what was handed over is as it was"


def test_cmyk() -> None:
    image = Image.new("CMYK", (56, 56), (0, 255, 255, 0))
    assert np.abs(load_image(picture(image, "JPEG")).frames - np.array([254, 0, 0])).max() < 5


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_of_moving_pictures(form: str) -> None:
    first, second = (Image.new("RGB", (56, 56), (grey,) * 3) for grey in (200, 20))
    data = picture(first, form, save_all=True, append_images=[second, first])
    assert np.abs(load_image(data).frames.astype(int) - 200).max() <= 2


def test_whoever_gets_less_than_was_given_is_told() -> None:
    large = np.zeros((750, 1000, 3), np.uint8)
    assert load_image(large).note == ""
    assert load_image(large, max_pixels=CPU_PIXELS).note == ""
    assert load_image(large, max_pixels=CPU_PIXELS // 4).note == (
        "1000x750 pixels were made 504x364, and small details may be lost: "
        "a higher max_pixels keeps more, and takes longer"
    )


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("https://example.com/a.png", "an address.* Download it first, and give its path or its bytes"),
        ("file:///etc/passwd", "nothing is fetched; found file:///etc/passwd"),
        ("data:image/png;base64,iVBO", "Decode its base64, and give the bytes"),
        ("/nowhere/a.png", r"/nowhere/a\.png: there is no such file"),
        ("/", "not a regular file; found a folder"),
        ("/dev/zero", "not a regular file; found a device"),
        ("a\0b", "cannot be opened"),
        (Path("~nobody-here/a.png"), "~nobody-here/a.png: there is no such file; found a home folder of nobody"),
        (np.zeros((28, 28, 4), np.uint8), r"expected uint8 \[height, width, 3\].* found uint8 \[28, 28, 4\]"),
        (np.zeros((28, 28, 3), np.float32), "found float32"),
        (np.zeros((0, 28, 3), np.uint8), r"found uint8 \[0, 28, 3\]"),
        (np.broadcast_to(np.uint8(9), (10**6, 10**6, 3)), "found 1000000x1000000"),  # which nobody has room for
        (12, "no picture; expected a path, bytes, a Pillow image or an array; found a int"),
    ],
)
def test_what_is_no_picture(source: object, why: str) -> None:
    with pytest.raises(MediaError, match=why):
        load_image(source)  # type: ignore[arg-type]


def test_pillow_images_that_are_broken_or_too_large() -> None:
    with pytest.raises(MediaError, match="the picture cannot be read; found OSError: image file is truncated"):
        load_image(Image.open(io.BytesIO(picture(noise(56, 56))[:3000])))
    with pytest.raises(MediaError, match="at most 64 megapixels, and 32768 pixels on a side; found 9000x9000"):
        load_image(Image.new("1", (9000, 9000)))


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)
    for source in (picture(noise(28, 28)), noise(28, 28)):
        with pytest.raises(ErnieRtError, match=r"Pillow is not installed.* pip install 'ernie-rt\[vision\]'"):
            load_image(source)


def test_nothing_of_it_is_imported_before_it_is_needed() -> None:
    text = (
        "import sys, ernie_rt.vision.image, ernie_rt.vision.video; sys.exit(not {'PIL', 'av'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_nothing_is_left_of_a_process() -> None:
    load_image(picture(noise(28, 28)))
    files, children = len([*Path("/proc/self/fd").iterdir()]), child_processes()
    load_image(picture(noise(28, 28)))
    with pytest.raises(MediaError):
        load_image(picture(noise(28, 28))[:-200])
    assert len([*Path("/proc/self/fd").iterdir()]) == files
    assert child_processes() <= children, "those of other tests may be there"


def child_processes() -> set[str]:
    """Of this one, those that ended and were not waited for among them."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
