"""Which files are pictures or videos that are read here, by their first bytes; and which are often taken for such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ernie_rt.errors import MediaError

Magic = Sequence[tuple[int, bytes]]
"""Places in a file, and what stands there."""

PICTURES: Final[Mapping[str, Magic]] = {
    "PNG": [(0, b"\x89PNG\r\n\x1a\n")],
    "JPEG": [(0, b"\xff\xd8\xff")],
    "WEBP": [(0, b"RIFF"), (8, b"WEBP")],
    "GIF": [(0, b"GIF8")],
}
VIDEOS: Final[Mapping[str, Magic]] = {
    "mov": [(4, b"ftyp")],
    "matroska": [(0, b"\x1aE\xdf\xa3")],
    "avi": [(0, b"RIFF"), (8, b"AVI ")],
}
"""By FFmpeg's names: MP4 and MOV are one, Matroska and WebM another."""
OTHERS: Final[Mapping[str, Magic]] = {
    "HEIF": [(4, b"ftyphei")],
    "HEIF ": [(4, b"ftypmif1")],
    "AVIF": [(4, b"ftypavi")],
    "TIFF": [(0, b"II*\0")],
    "TIFF ": [(0, b"MM\0*")],
    "BMP": [(0, b"BM")],
    "PSD": [(0, b"8BPS")],
    "PDF": [(0, b"%PDF")],
    "SVG": [(0, b"<svg")],
    "XML or SVG": [(0, b"<?xml")],
    "HTML": [(0, b"<!")],
    "JPEG XL": [(0, b"\xff\x0a")],
    "JPEG XL ": [(4, b"JXL ")],
    "JPEG 2000": [(4, b"jP  ")],
    "icon": [(0, b"\0\0\1\0")],
    "playlist": [(0, b"#EXTM3U")],
    "FLV": [(0, b"FLV")],
    "MPEG": [(0, b"\0\0\1\xba")],
    "WMV": [(0, b"0&\xb2u")],
    "Ogg": [(0, b"OggS")],
    "ZIP": [(0, b"PK\3\4")],
}
PICTURE_NAMES: Final = "PNG, JPEG, WebP or GIF"
VIDEO_NAMES: Final = "MP4, MOV, Matroska, WebM or AVI"


def picture_format(head: bytes, where: str) -> str:
    """Which of `PICTURES` begins like this; MediaError where none does."""
    return _format(head, where, PICTURES, PICTURE_NAMES, "picture", "Convert it to PNG or JPEG")


def video_format(head: bytes, where: str) -> str:
    """Which of `VIDEOS` begins like this; MediaError where none does."""
    return _format(head, where, VIDEOS, VIDEO_NAMES, "video", "Convert it to MP4, `ffmpeg -i FILE OUT.mp4`")


def _format(head: bytes, where: str, known: Mapping[str, Magic], names: str, kind: str, hint: str) -> str:
    found = _kind(head, OTHERS)  # first: pictures in HEIF begin like videos in MP4
    if found is None and (name := _kind(head, known)) is not None:
        return name
    other = found or _kind(head, PICTURES if known is VIDEOS else VIDEOS)
    if not head:
        raise MediaError(f"the {kind} is empty", where=where, expected=names)
    if other is None:
        raise MediaError(f"no {kind} that is read here", where=where, expected=names, found=_bytes(head), hint=hint)
    raise MediaError(f"no {kind} that is read here", where=where, expected=names, found=f"{other.strip()}", hint=hint)


def _kind(head: bytes, known: Mapping[str, Magic]) -> str | None:
    return next((name for name, magic in known.items() if all(head.startswith(b, at) for at, b in magic)), None)


def _bytes(head: bytes) -> str:
    return f"a file that begins with {ascii(head[:8])[1:]}"
