"""Videos from files, bytes and arrays: the frames that were chosen, with their times, in the model's size."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ernie_rt.errors import MediaError
from ernie_rt.vision.drawing import draw_timestamp
from ernie_rt.vision.timestamps import timestamp
from ernie_rt.vision.video import load_video
from support.media import noise, video


def shown(frames: npt.NDArray[Any]) -> list[int]:
    """Which frames these are of those that `video` makes."""
    return [round(float(level) / 10) for level in frames[:, -20:].mean((1, 2, 3))]


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp4", "libx264"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in [
                ("webm", "libvpx-vp9"),
                ("mov", "mpeg4"),
                ("matroska", "libx265"),
                ("webm", "libvpx"),
                ("avi", "mjpeg"),
            ]
        ),
    ],
)
def test_the_frames_that_were_chosen(form: str, codec: str) -> None:
    item = load_video(video(24, form, codec, rate=24))
    assert shown(item.frames) == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    assert (item.kind, item.grid, item.tokens, item.note) == ("video", (16, 30, 40), 2400, "")


def test_a_broken_frame_is_left_out() -> None:
    """One beside it is shown in its place, as players do, and what follows as ever."""
    data = bytearray(video(8, "avi", "mjpeg", rate=2))
    assert shown(load_video(bytes(data), min_pixels=0).frames) == [*range(8)]
    begins = [place for place in range(len(data)) if data.startswith(b"\xff\xd8\xff", place)]
    assert len(begins) == 8
    data[begins[3] : begins[4] - 8] = bytes(begins[4] - 8 - begins[3])
    found = shown(load_video(bytes(data), min_pixels=0).frames)
    assert found[:3] == [0, 1, 2] and found[3] in (2, 4) and found[4:] == [4, 5, 6, 7]


def test_they_are_pixel_by_pixel_what_decoding_all_gives(tmp_path: Path) -> None:
    """With seeking from key frame to key frame, which a high rate and few wanted frames make."""
    pixels = [noise(6, 8, seed=n).repeat(16, 0).repeat(16, 1) for n in range(100)]
    path = tmp_path / "a.mp4"
    path.write_bytes(video(pixels, codec="libx264"))
    with av.open(path) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    item = load_video(path, min_frames=6, max_frames=6, min_pixels=0)
    assert item.frames.shape == (6, 84, 140, 3) and len(decoded) == 100
    for frame, index in zip(item.frames, (0, 16, 33, 50, 66, 83), strict=True):
        image = Image.fromarray(decoded[index])
        draw_timestamp(image, timestamp(index / 10))
        np.testing.assert_array_equal(frame, np.asarray(image.resize((140, 84), Image.Resampling.BICUBIC)))


def test_an_array_is_frames_that_somebody_has_chosen() -> None:
    frames = np.stack([noise(56, 84, seed=n) for n in range(3)])
    item = load_video(frames, fps=0.5, min_pixels=0)
    assert item.grid == (4, 4, 6)
    for index, seconds in enumerate((0, 2, 4, 4)):
        image = Image.fromarray(frames[min(index, 2)])
        draw_timestamp(image, f"time: 00:00:0{seconds}.00")
        np.testing.assert_array_equal(item.frames[index], np.asarray(image))


def test_two_frames_a_second_of_a_longer_one() -> None:
    data = video(24, rate=2)
    item = load_video(data, min_pixels=0)
    assert shown(item.frames) == [*range(24)] and item.note == ""
    item = load_video(data, max_frames=16, min_pixels=0)
    assert shown(item.frames) == [index * 24 // 16 for index in range(16)]
    assert item.note == "16 frames were taken from 12 s: what is short may be missed"


@pytest.mark.parametrize(
    ("count", "rate", "rule", "taken"),
    [
        (21, 10, {"max_frames": 4}, 5),
        (29, 10, {"max_frames": 5}, 6),
        (451, 5, {}, 181),
        pytest.param(901, 10, {"fps": 8, "max_frames": 720}, 721, marks=pytest.mark.long),
    ],
)
def test_one_frame_more_than_the_limit(count: int, rate: int, rule: dict[str, Any], taken: int) -> None:
    """Is decoded, and counted before; an odd one is there twice."""
    announced: list[int] = []
    data = video(count, rate=rate)
    item = load_video(data, min_pixels=0, max_pixels=28**2, announce=announced.append, **rule)
    assert len(item.frames) == taken + taken % 2 and item.note == ""
    assert announced == [item.tokens] == [(taken + 1) // 2]
    levels = [10 * round(index * rate / rule.get("fps", 2)) % 256 for index in range(taken)]
    seen = item.frames[:taken, -8:].mean((1, 2, 3))
    assert np.abs(seen - levels).max() < 5


def test_frames_at_uneven_times() -> None:
    """The nth of them, whenever it is shown."""
    item = load_video(video(24, "matroska", times=[n * n for n in range(24)]), max_frames=6, min_pixels=0)
    assert shown(item.frames) == [0, 4, 8, 12, 16, 20]


def test_a_claimed_rate_is_not_believed() -> None:
    data = video(24, "matroska", rate=24, times=[24 * n for n in range(24)])
    assert "from 24 s" in load_video(data, max_frames=4, min_pixels=0).note


def test_four_hours_are_not_too_long() -> None:
    """One of more is refused (`test_hostile_videos`)."""
    assert len(load_video(video(4, rate=Fraction(1, 3600)), min_pixels=0, max_frames=4).frames) == 4


def test_one_frame_is_there_twice() -> None:
    item = load_video(video(1), min_pixels=0)
    assert item.grid[0] == 2 and (item.frames[0] == item.frames[1]).all()


def test_a_video_with_sound() -> None:
    assert load_video(video(20, "matroska", sound=True), min_pixels=0).grid[0] == 16


@pytest.mark.parametrize("turn", [1, pytest.param(-1, marks=pytest.mark.long)])
def test_phones_are_held_upright(turn: int) -> None:
    lying = np.zeros((64, 112, 3), np.uint8)
    lying[:, :56] = 255
    data = video([lying] * 4)
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, turn << 16, 0, -turn << 16, 0, 0, 0, 0, 1 << 30))
    assert data[matrix : matrix + 4] == (65536).to_bytes(4, "big")
    turned = load_video(data[:matrix] + quarter + data[matrix + 36 :], min_pixels=0)
    assert turned.grid == (4, 8, 4)
    top, bottom = turned.frames[0, 20:40].mean(), turned.frames[0, -20:].mean()
    light, dark = (top, bottom)[::turn]
    assert light > 240 and dark < 15


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "time: 00:00:00.00"),
        (0.5, "time: 00:00:00.50"),
        (59.996, "time: 00:00:60.00"),
        (61.25, "time: 00:01:01.25"),
        (3 * 3600 + 62.5, "time: 03:01:02.50"),
        (14 / 29.97, "time: 00:00:00.47"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


def test_times_are_drawn_in_the_font_that_the_model_was_trained_with() -> None:
    image = Image.new("RGB", (640, 360), (90, 90, 90))
    draw_timestamp(image, "time: 00:01:02.50")
    pixels = np.asarray(image)
    rows, columns = np.nonzero((pixels != 90).any(2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 36, 0, 277)
    assert pixels.min() == 0 and pixels.max() == 255
    font = files("ernie_rt.vision").joinpath("font", "Roboto-Regular.ttf").read_bytes()
    assert hashlib.sha256(font).hexdigest() == "797e35f7f5d6020a5c6ea13b42ecd668bcfb3bbc4baa0e74773527e5b6cb3174"
    draw_timestamp(Image.new("RGB", (9, 9)), "time: 00:00:00.00")  # too small for letters


needs_proc = pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file here")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("rtsp://example.com/live", "nothing is fetched; found rtsp://example.com/live"),
        ("/nowhere/a.mp4", r"/nowhere/a\.mp4: there is no such file"),
        ("~nobody-here/a.mp4", "there is no such file; found a home folder of nobody"),
        pytest.param("/proc/self/mem", "/proc/self/mem: cannot be read", marks=needs_proc),
        (np.zeros((28, 28, 3), np.uint8), r"expected uint8 \[frames, height, width, 3\].* found uint8 \[28, 28, 3\]"),
        (None, "no video; expected a path, bytes or an array; found a NoneType"),
    ],
)
def test_what_is_no_video(source: Any, why: str) -> None:
    with pytest.raises(MediaError, match=why):
        load_video(source)


def test_a_rate_of_a_fraction() -> None:
    item = load_video(video(24, rate=Fraction(30000, 1001)), max_frames=2, min_pixels=0)
    assert shown(item.frames) == [0, 12]
