"""Which files are pictures or videos that are read here, by their first bytes; and which are often taken for such."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from ernie_rt.errors import MediaError

Kind = Literal["picture", "video"]

HEAD_BYTES: Final = 64
"""So many of a file's first bytes are looked at."""

FORMATS: Final[Mapping[Kind, Mapping[str, bytes]]] = {
    "picture": {
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "JPEG": rb"\xff\xd8\xff",
        "WEBP": rb"RIFF.{4}WEBP",
        "GIF": rb"GIF8[79]a",
    },
    "video": {
        "mov": rb".{4}(ftyp|moov|mdat|wide)",
        "matroska": rb"\x1aE\xdf\xa3",
        "avi": rb"RIFF.{4}AVI ",
    },
}
"""What files begin with, by the names that Pillow and FFmpeg have for them: MP4 is read as MOV, WebM as Matroska."""
OTHERS: Final[Mapping[str, bytes]] = {
    "HEIF": rb".{4}ftyp(hei|hev|mif1|msf1)",
    "AVIF": rb".{4}ftypavi",
    "TIFF": rb"II\*\0|MM\0\*",
    "BMP": rb"BM",
    "PSD": rb"8BPS",
    "PDF": rb"%PDF",
    "SVG or XML": rb"<(svg|\?xml)",
    "HTML": rb"<(!|html)",
    "JPEG XL": rb"\xff\x0a|.{4}JXL ",
    "JPEG 2000": rb".{4}jP  ",
    "an icon": rb"\0\0\x01\0",
    "a playlist": rb"#EXTM3U|ffconcat",
    "FLV": rb"FLV",
    "MPEG": rb"\0\0\x01\xba",
    "WMV": rb"0&\xb2u",
    "Ogg": rb"OggS",
    "ZIP": rb"PK\x03\x04",
}
NAMES: Final[Mapping[Kind, str]] = {
    "picture": "PNG, JPEG, WebP or GIF",
    "video": "MP4, MOV, Matroska, WebM or AVI",
}
HINTS: Final[Mapping[Kind, str]] = {
    "picture": "Convert it to PNG or JPEG",
    "video": "Convert it to MP4: `ffmpeg -i FILE OUT.mp4`",
}


def format_of(head: bytes, kind: Kind, where: str | None) -> str:
    """Which of the `FORMATS` of a kind begins like this; MediaError where none does."""
    other = _begins(head, OTHERS)  # first: a picture in HEIF begins like a video in MP4
    if other is None and (name := _begins(head, FORMATS[kind])) is not None:
        return name
    other = other or _begins(head, {name: magic for formats in FORMATS.values() for name, magic in formats.items()})
    found = other or (f"a file that begins with {ascii(head[:8])[1:]}" if head else "an empty file")
    raise MediaError(f"no {kind} that is read here", where=where, expected=NAMES[kind], found=found, hint=HINTS[kind])


def _begins(head: bytes, formats: Mapping[str, bytes]) -> str | None:
    return next((name for name, magic in formats.items() if re.match(magic, head, re.DOTALL)), None)
