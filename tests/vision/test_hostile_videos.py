"""Videos that were made to do harm, or are broken: a MediaError each, within limits; and no other file is opened."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from ernie_rt.errors import MediaError
from ernie_rt.vision import decoding
from ernie_rt.vision import video as loading
from ernie_rt.vision.decoding import PROGRAM, Decoding
from ernie_rt.vision.video import load_video
from ernie_rt.worker import Worker, folders_of
from support.media import noise, sound, video

FTYP = b"\0\0\0\x18ftypisom\0\0\0\0isommp42"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "expected MP4, MOV, Matroska, WebM or AVI; found an empty file"),
        (PLAYLIST % b"file:///etc/passwd", "found a playlist"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "found a playlist"),
        (b"FLV\x01" + bytes(99), "found FLV"),
        (b"\x89PNG\r\n\x1a\n", "found PNG"),
        (b"<?xml version='1.0'?><MPD/>", "found SVG or XML"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "found a file that begins with 'v=0"),
    ],
)
def test_other_formats_are_refused_by_their_names(data: bytes, why: str) -> None:
    with pytest.raises(MediaError, match=f"^no video that is read here; .*{why}"):
        load_video(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FTYP, ".*Invalid data found when processing input"),
        pytest.param(FTYP + b"\0\0\0\x08moov", "no track of pictures", marks=pytest.mark.long),
        (sound(), "no track of pictures"),
        (video(4, "matroska", "ffv1"), "the codec ffv1, none of h264, hevc"),
        (video(4, rate=Fraction(1, 6000)), "more than 4 hours"),
        pytest.param(video(3, "matroska", times=[0, 1, 10**10]), "more than 4 hours", marks=pytest.mark.long),
        (video([noise(16, 4112)]), "frames of 4112x16, more than"),
        pytest.param(video(9)[:900], "the codec of nobody", marks=pytest.mark.long),
    ],
)
def test_broken_and_foreign_ones(data: bytes, why: str) -> None:
    with pytest.raises(MediaError, match=f"^the video cannot be read; found {why}"):
        load_video(data)


@pytest.mark.parametrize(
    "head",
    [FTYP, *(pytest.param(head, marks=pytest.mark.long) for head in (b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI "))],
)
def test_no_playlist_is_read_as_another_format(head: bytes) -> None:
    """The demuxer is the one that the first bytes name, whatever follows them."""
    with pytest.raises(MediaError, match="cannot be read"):
        load_video(head + PLAYLIST % b"/etc/passwd")


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    """A track whose pictures are said to lie elsewhere; and that nothing can be opened, even by whoever wants to."""
    data = video(4)
    own = struct.pack(">I", 12) + b"url \0\0\0\x01"
    assert own in data
    load_video(data.replace(own, own[:-1] + b"\0"), min_pixels=0)  # from this file, or not at all

    (tmp_path / "a.mp4").write_bytes(data)
    given = {"format": "mov", "threads": 1, "path": str(tmp_path / "a.mp4")}
    child = Worker(
        ["-c", PROGRAM], ["video", str(1 << 31), "10", "3", *folders_of("ernie_rt", "PIL", "av")], "decode a video", ""
    )
    try:
        _, answer = child.ask(json.dumps({"open": given}).encode() + b"\n", 10, 999)
    finally:
        child.end()
    assert answer is not None and b"Too many open files" in answer
    with (
        Decoding("video", "x", given, seconds=10, cpu_seconds=10) as decoding,
        pytest.raises(MediaError, match="Too many open files"),
    ):
        decoding._ask({"open": given}, b"", 999)


def test_lies_about_counts_are_not_believed() -> None:
    data = video(4)
    table = data.index(b"stts") + 8
    lying = data[:table] + struct.pack(">III", 1, 2**31 - 1, 1) + data[table + 12 :]
    assert load_video(lying, min_pixels=0).grid[0] == 4
    table = data.index(b"stsz") + 8
    with pytest.raises(MediaError, match="cannot be read"):
        load_video(data[:table] + struct.pack(">II", 1, 2**30) + data[table + 8 :])


def test_what_was_cut_off_shows_what_is_there() -> None:
    pixels = [noise(64, 64, seed=n) for n in range(24)]
    whole = video(pixels, "matroska", "mjpeg")
    assert 4 <= load_video(whole[: len(whole) // 2], fps=10, min_pixels=0).grid[0] < 16


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"frames": 9},
        {"fps": 2.0},
        {"frames": 9, "fps": 2},
        {"frames": "9", "fps": 2.0},
        {"frames": 3, "fps": 5e-324},
        {"frames": 10**300, "fps": 2.0},
    ],
)
def test_a_process_that_a_video_has_taken_over_is_not_believed(
    answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.dumps({"size": [28, 28], **answer}).encode() + b"\n"
    taken = SimpleNamespace(ask=lambda request, seconds, most: (True, told), end=lambda: (False, 0))
    monkeypatch.setattr(decoding, "Worker", lambda *_: taken)
    with pytest.raises(MediaError, match="the process that decodes the video answers nonsense"):
        load_video(video(4))


def test_what_takes_too_long_is_stopped() -> None:
    with pytest.raises(
        MediaError, match=r"the video takes too long to decode; expected at most 0.01 s.* shorter first"
    ):
        load_video(video([noise(720, 1280)], "avi", "mjpeg"), seconds=0.01)


def test_too_large_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "MAX_BYTES", 1000)
    (tmp_path / "a.mp4").write_bytes(video(9))
    for source in (video(9), tmp_path / "a.mp4"):
        with pytest.raises(MediaError, match="the video is too large; expected at most 1000 B"):
            load_video(source)
    monkeypatch.setattr(loading, "MAX_BYTES", len(video(9)))
    for source in (video(9), tmp_path / "a.mp4"):
        load_video(source)
