"""The child process that decodes one picture or video of a stranger, within limits, and is gone after it.

It says what a header or, of a video, an index holds, and waits until it is asked for pixels of a size: what is to be
decided is decided by its parent (decoding.py). What is said either way is a frame: a length, 4 bytes with the highest
first, and so many bytes. An empty one tells that it is ready and, later, that it has read a request: a line of JSON,
with a file's bytes behind it. The answer is a line of JSON, `{"error": why}` where there is nothing else to say, with
pixels behind it.
"""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from PIL import ExifTags, GifImagePlugin, Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

OPENERS: Mapping[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}


class Medium(Protocol):
    """What is decoded here: a picture, or the frames of a video."""

    def about(self) -> dict[str, Any]:
        """What is known before much is decoded."""

    def pixels(self, asked: Mapping[str, Any]) -> tuple[tuple[int, int], bytes]:
        """A width, a height, and red, green and blue of so many pixels."""


class Picture:
    """A picture of an allowed format, whose header alone has been read."""

    def __init__(self, asked: Mapping[str, Any], data: bytes) -> None:
        try:
            self._image = OPENERS[asked["format"]](io.BytesIO(data))
        except (SyntaxError, IndexError, TypeError, struct.error):  # what Pillow's own `open` takes for a refusal
            raise Refused("a broken header") from None

    def about(self) -> dict[str, Any]:
        return {"size": self._image.size}

    def pixels(self, asked: Mapping[str, Any]) -> tuple[tuple[int, int], bytes]:
        """It is turned upright; the size that is asked for is one of it as it is stored."""
        width, height = asked["size"]
        stored = self._image.size
        self._image.load()
        try:
            ImageOps.exif_transpose(self._image, in_place=True)
        except MemoryError:
            raise
        except Exception:  # noqa: S110  EXIF data may be anything
            pass
        if self._image.size != stored:
            width, height = height, width
        return (width, height), to_size(self._image, (width, height))


def to_size(image: Image.Image, size: tuple[int, int]) -> bytes:
    """Red, green and blue of an image, resized bicubically; transparency is dropped, and of 16 bits the lower 8."""
    if image.mode.startswith("I;16"):  # Pillow would take all above 255 for white
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # which would be dropped with a warning
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC).tobytes()


def limit(memory: int, seconds: int, files: int) -> None:
    """From here on this process has so much memory, computing time and so many files, where the system limits them."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit there
        return
    limits = {"AS": memory, "CPU": seconds, "FSIZE": 0, "CORE": 0, "NOFILE": files}
    for name, value in limits.items():
        # macOS lets nobody limit memory, some systems do not know of it; elsewhere a lower limit may be there already.
        with suppress(AttributeError, OSError, ValueError):
            most = value + 1 if name == "CPU" else value  # a second in which SIGXCPU says why it ends
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, most))


def serve(open_medium: Callable[[Mapping[str, Any], bytes], Medium], requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one request after the other until there are no more: those with `open`, and those for pixels of that."""
    medium: Medium | None = None

    def say(*parts: bytes) -> None:
        answers.write(sum(map(len, parts)).to_bytes(4, "big"))
        for part in parts:
            answers.write(part)
        answers.flush()

    say()
    while header := requests.read(4):
        line, _, data = requests.read(int.from_bytes(header, "big")).partition(b"\n")
        say()
        told: dict[str, Any]
        pixels = b""
        try:
            asked = json.loads(line)
            if medium is None or "open" in asked:
                medium = open_medium(asked["open"], data)
                told = medium.about()
            else:
                size, pixels = medium.pixels(asked)
                told = {"size": size}
        except MemoryError:
            told = {"error": "more memory needed than it may take"}
        except Exception as error:
            told = {"error": reason(error)}
        say(json.dumps(told).encode(), b"\n", pixels)


def reason(error: Exception) -> str:
    """What a decoder says is wrong, without the names of files and the numbers that FFmpeg adds."""
    said = getattr(error, "strerror", None) or str(error)
    return (said if isinstance(error, Refused | OSError) else f"{type(error).__name__}: {said}")[:300]


class Refused(Exception):
    """Why a medium is not decoded, in words that follow `found`."""


def pictures() -> Iterator[tuple[dict[str, Any], bytes]]:
    """A small picture of each format, and how it is asked for."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for name in OPENERS:
        file = io.BytesIO()
        Image.new("P" if name == "GIF" else "RGB", (9, 9)).save(file, name, **({} if name == "GIF" else {"exif": exif}))
        yield {"format": name}, file.getvalue()


def main() -> None:
    kind, memory, seconds, files = sys.argv[1], *map(int, sys.argv[2:5])
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is meant for the parent
    warnings.simplefilter("ignore")
    open_medium: Callable[[Mapping[str, Any], bytes], Medium]
    if kind == "video":
        from ernie_rt.vision.film import Film, samples

        open_medium = Film
    else:
        open_medium, samples = Picture, pictures
    for asked, data in samples():  # what is loaded at its first use: no file can be opened later
        sample = open_medium(asked, data)
        sample.about()
        sample.pixels({"size": (28, 28), "index": 0, "text": "time: 00:00:00.00", "chosen": [0]})
    limit(memory, seconds, files)
    serve(open_medium, sys.stdin.buffer, sys.stdout.buffer)
