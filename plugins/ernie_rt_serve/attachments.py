"""Pictures and videos in requests: files in base64 that a request brings itself. Nothing is ever fetched or opened."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ernie_rt.errors import MediaError
from ernie_rt.vision.formats import HEAD_BYTES, format_of
from ernie_rt_serve.faults import Fault

Kind = Literal["image", "video"]
Detail = Literal["auto", "low", "high", "original"]

LOW: Final = 256 * 28 * 28
"""Pixels of a picture whose detail is low: 256 tokens, each of 28 by 28."""
HEAD: Final = 256
"""Characters of a data URI within which its data begins."""
STEP: Final = 1 << 20
"""Characters that are decoded at once; other threads have their turn between."""

TYPES: Final[Mapping[Kind, Mapping[str, str]]] = {
    "image": {
        "image/png": "PNG",
        "image/jpeg": "JPEG",
        "image/jpg": "JPEG",
        "image/webp": "WEBP",
        "image/gif": "GIF",
    },
    "video": {
        "video/mp4": "mov",
        "video/quicktime": "mov",
        "video/webm": "matroska",
        "video/x-matroska": "matroska",
        "video/x-msvideo": "avi",
    },
}
"""The media types that are taken, and what files of them are, by the names of `ernie_rt.vision.formats`."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A picture or video of a request that nobody has looked into yet, a part of a message: `text` is its base64 from
    `start` on.

    `where` is its place in the request; `max_pixels` bounds the pixels that the model is to see of it.
    """

    kind: Kind
    type: str
    text: str
    where: str
    start: int = 0
    max_pixels: int | None = None

    def digest(self) -> bytes:
        """Equal for equal files."""
        digest = hashlib.sha256()
        for start in self._steps:
            digest.update(self.text[start : start + STEP].encode())
        return digest.digest()

    def data(self) -> bytes:
        """The file; MediaError where it is no base64, or not what its media type says."""
        data = self._decoded()
        form = format_of(data[:HEAD_BYTES], "picture" if self.kind == "image" else "video", None)
        if form != TYPES[self.kind][self.type]:
            types = " or ".join(type for type, other in TYPES[self.kind].items() if other == form)
            raise MediaError("the media type is not that of the content", expected=types, found=self.type)
        return data

    def _decoded(self) -> bytes:
        try:
            parts = [binascii.a2b_base64(self.text[start : start + STEP], strict_mode=True) for start in self._steps]
        except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
            raise MediaError("not base64", found=str(error).removesuffix(".")) from None
        if any(len(part) != STEP // 4 * 3 for part in parts[:-1]):
            raise MediaError("not base64", found="padding before the end")
        return b"".join(parts)

    @property
    def _steps(self) -> range:
        return range(self.start, len(self.text), STEP)

    def fault(self, what: str) -> Fault:
        return Fault(400, f"{self.where}: {what}", self.where)


def from_url(kind: Kind, url: str, where: str, detail: Detail | None = None) -> Attachment:
    """What a data URI holds; a Fault for every other URL."""
    scheme, _, rest = url[:HEAD].partition(":")
    head, comma, _ = rest.partition(",")
    like = f"data:{next(iter(TYPES[kind]))};base64"
    if scheme.strip().lower() != "data":
        what = f"only data URIs are taken, since nothing is fetched or opened here: send the file itself, as {like},…"
        raise Fault(400, f"{where}: {what}", where)
    type, *parameters = (word.strip().lower() for word in head.split(";"))
    if not comma or "base64" not in parameters[-1:]:
        raise Fault(400, f"{where}: a data URI must begin like {like}, and go on in base64", where)
    start, max_pixels = len(scheme) + len(head) + 2, LOW if detail == "low" else None
    return from_base64(kind, type, url, where, start=start, max_pixels=max_pixels)


def from_base64(
    kind: Kind, type: str, text: str, where: str, *, start: int = 0, max_pixels: int | None = None
) -> Attachment:
    """A file in base64; a Fault for a media type that is not taken."""
    if type not in TYPES[kind]:
        raise Fault(400, f"{where}: the media type must be one of {', '.join(TYPES[kind])}", where)
    return Attachment(kind, type, text, where, start, max_pixels)
