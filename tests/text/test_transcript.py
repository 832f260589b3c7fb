"""Saved conversations that somebody wrote by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.errors import FileFormatError
from ernie_rt.text.transcript import FORMAT, read_transcript


def saved(path: Path, part: Any) -> Path:
    messages = [{"role": "user", "content": [part]}]
    path.write_text(json.dumps({"format": FORMAT, "model": "demo", "messages": messages}))
    return path


def test_a_picture_is_the_path_of_one(tmp_path: Path) -> None:
    (message,) = read_transcript(saved(tmp_path / "talk.json", {"type": "image", "image": "/cat.png", "max_pixels": 9}))
    (media,) = message.media
    assert (media.source, media.max_pixels) == (Path("/cat.png"), 9)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": ["image"]}, r"found type \['image'\]"),
        ({"type": "image", "image": 5}, "no image; found int"),
        ({"type": "video", "video": "/a.mp4", "fps": -1}, "fps is not possible; found -1"),
        ([], "found list"),
    ],
)
def test_parts_that_are_none(tmp_path: Path, part: Any, found: str) -> None:
    with pytest.raises(FileFormatError, match=f"message 1, part 1: not a saved conversation: .*{found}"):
        read_transcript(saved(tmp_path / "talk.json", part))
