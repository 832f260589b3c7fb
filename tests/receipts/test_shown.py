"""Pictures and videos of receipts: what is said of them, and that they are found again by what they are."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt.receipts import shown
from ernie_rt.receipts.shown import Shown, find_again, libraries
from ernie_rt.vision.image import load_image
from ernie_rt.vision.video import load_video
from support import sighted
from support.media import video

SIZE = (75, 60)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pictures, and the first one once more under another name."""
    rng = np.random.default_rng(1)
    paths = [tmp_path / name for name in ("one.png", "two.png")]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(path)
    paths.append(tmp_path / "again.jpg")  # whatever a name says
    paths[2].write_bytes(paths[0].read_bytes())
    return paths


def test_what_a_receipt_says_of_a_picture(files: list[Path]) -> None:
    item = load_image(files[0], max_pixels=4 * 784)
    said = Shown.of(7, item)
    assert said.file == hashlib.sha256(files[0].read_bytes()).hexdigest() and said.given == SIZE
    assert (said.kind, said.start, said.frames, said.size) == ("image", 7, 1, (56, 28))
    assert (said.tokens, said.grid) == (item.tokens, item.merged) and said.pixels == item.digest.hex()
    assert said.asked["max_pixels"] == 4 * 784 and said.by == libraries("image") != ()
    assert said.by[0].startswith("pillow ")
    told = json.dumps(said.to_json())
    assert len(told) < 500 and str(files[0]) not in told and files[0].name not in told


def test_pictures_are_found_by_what_they_are(files: list[Path]) -> None:
    items = [load_image(path) for path in files[:2]]
    said = [Shown.of(start, item) for start, item in zip((1, 9), items, strict=True)]
    found = find_again(said, [files[1], files[2]])  # in another order, and by another name
    assert [(start, item.digest) for start, item in found] == [(1, items[0].digest), (9, items[1].digest)]
    limited = Shown.of(1, load_image(files[0], max_pixels=784))
    ((_, again),) = find_again([limited], files)
    assert again.digest.hex() == limited.pixels and again.tokens == 1


def test_a_video_with_one_frame_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(video(24, rate=10))
    said = Shown.of(3, load_video(path, max_frames=4, max_pixels=784))
    assert (said.frames, said.tokens, said.asked["max_frames"]) == (6, 3, 4)
    ((start, again),) = find_again([said], [path])
    assert start == 3 and again.digest.hex() == said.pixels and again.tokens == said.tokens


def test_what_is_missing_is_named(files: list[Path]) -> None:
    said = [Shown.of(1, load_image(files[0])), Shown.of(9, load_image(files[1]))]
    with pytest.raises(OptionError) as caught:
        find_again(said, [files[0]])
    assert caught.value.expected == f"2. image of 75x60, sha256 {said[1].file}"
    assert caught.value.hint == "Give the files: `ernie-rt replay RECEIPT --file FILE`, once for each"
    with pytest.raises(OptionError, match=r"1\. image of 75x60.*; 2\. image of 75x60"):
        find_again(said, [])


def test_what_was_no_file_is_found_by_its_pixels(files: list[Path]) -> None:
    item = load_image(np.asarray(Image.open(files[0])))
    said = Shown.of(0, item)
    assert said.file is None and "no file" in str(said)
    assert find_again([said], [item]) == ((0, item),)
    with pytest.raises(OptionError, match="from Python alone"):
        find_again([said], files)
    with pytest.raises(OptionError, match="nothing is known of but its pixels; found one of 6 tokens"):
        Shown.of(0, sighted.picture())


def test_libraries_are_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(absent: str, name: str) -> str:
        if name == absent:
            raise PackageNotFoundError(name)
        return "9"

    for absent, here in (("pillow", ("av 9",)), ("av", ("pillow 9",)), ("", ("pillow 9", "av 9"))):
        monkeypatch.setattr(shown, "version", partial(without, absent))
        assert libraries("video") == here


def test_other_pixels_are_an_error_that_names_the_libraries(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    said = Shown.of(1, load_image(files[0]))
    monkeypatch.setattr("ernie_rt.vision.image.load_image", lambda path, **asked: load_image(files[1]))
    monkeypatch.setattr(shown, "version", lambda name: "99")
    with pytest.raises(FileFormatError, match=r"becomes other pixels.*by pillow \d.*by pillow 99.*Install"):
        find_again([said], files)
