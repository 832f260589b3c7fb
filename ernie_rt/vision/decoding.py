"""Have a picture or video decoded in a child process, within limits of time and memory."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ernie_rt.display import printable
from ernie_rt.errors import ErnieRtError, JsonError, MediaError
from ernie_rt.files import MIB
from ernie_rt.untrusted_json import parse_json
from ernie_rt.vision.formats import Kind
from ernie_rt.vision.limits import MAX_SECONDS
from ernie_rt.worker import Worker, folders_of

PROGRAM: Final = "import sys; sys.path += sys.argv[5:]; from ernie_rt.vision.decoder import main; main()"
MEMORY_BYTES: Final = 2048 * MIB
"""A picture of 64 megapixels takes up to 1.3 GiB: decoded, turned upright and without its transparency."""
LIBRARIES: Final = {"PIL": "Pillow", "av": "PyAV"}


def need(*packages: str) -> None:
    """ErnieRtError where a library is not installed that pictures or videos are read with."""
    for name in packages:
        if find_spec(name) is None:
            raise ErnieRtError(
                f"{LIBRARIES[name]} is not installed, which pictures and videos are read with",
                hint="pip install 'ernie-rt[vision]'",
            )


class Decoding:
    """A child process that has opened a picture or video; used in a `with` block, which ends it."""

    def __init__(
        self,
        kind: Kind,
        where: str | None,
        given: dict[str, Any],
        data: bytes = b"",
        *,
        seconds: float,
        cpu_seconds: int,
    ) -> None:
        """Open what is `given`, a format and perhaps a path, or else `data`: `about` is what is known of it.

        MediaError where it cannot be read, or not within so many seconds in all, of which so many may be computing.
        """
        packages = ("PIL", "av") if kind == "video" else ("PIL",)
        need(*packages)
        limits = [MEMORY_BYTES + 2 * len(data), cpu_seconds, 4 if "path" in given else 3]
        self._kind, self._where = kind, where
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._until = time.monotonic() + seconds
        self._worker: Worker | None = Worker(
            ["-c", PROGRAM],
            [kind, *map(str, limits), *folders_of("ernie_rt", *packages)],
            f"decode a {kind}",
            "give it as an array",
        )
        self.about: dict[str, Any] = self._ask({"open": given}, data, MIB)[0]
        if kind == "video" and not (
            self.about.keys() >= {"frames", "fps"} and self.about["frames"] / self.about["fps"] <= MAX_SECONDS
        ):
            raise self._nonsense()

    def pixels(self, size: tuple[int, int], **asked: Any) -> npt.NDArray[np.uint8]:
        """`[height, width, 3]` of about this `size`, width and height, which a picture that lies on its side has
        exchanged."""
        told, data = self._ask({"size": size, **asked}, b"", 3 * size[0] * size[1] + MIB)
        width, height = told["size"]
        if {width, height} != set(size) or len(data) != 3 * width * height:
            raise self._nonsense()
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _ask(self, request: dict[str, Any], data: bytes, most: int) -> tuple[dict[str, Any], memoryview]:
        assert self._worker is not None
        try:
            left = max(self._until - time.monotonic(), 0.001)
            _, answer = self._worker.ask(json.dumps(request).encode() + b"\n" + data, left, most)
            if answer is None:
                raise self._stopped(*self._end())
            line, _, _ = answer[:MIB].partition(b"\n")
            return self._told(line), memoryview(answer)[len(line) + 1 :]
        except BaseException:
            self._end()
            raise

    def _told(self, line: bytes) -> dict[str, Any]:
        """What it says of the medium, believed in nothing: what it decodes may have taken it over."""
        try:
            told = parse_json(line, where="its answer", depth=2)
        except JsonError:
            raise self._nonsense() from None
        match told:
            case {"error": str(error)}:
                raise MediaError(f"the {self._kind} cannot be read", where=self._where, found=printable(error))
            case {"size": [int(width), int(height)]} if width > 0 and height > 0:
                frames, fps = told.get("frames", 1), told.get("fps", 1.0)
                if isinstance(frames, int) and isinstance(fps, float) and frames > 0 and fps > 0:
                    return cast(dict[str, Any], told)
        raise self._nonsense()

    def _nonsense(self) -> MediaError:
        self._end()
        return MediaError(
            f"the process that decodes the {self._kind} answers nonsense",
            where=self._where,
            hint="It is broken, or made to break what reads it",
        )

    def _end(self) -> tuple[bool, int]:
        worker, self._worker = self._worker, None
        return worker.end() if worker is not None else (False, 0)

    def _stopped(self, expired: bool, code: int) -> MediaError:
        """Why it has given no answer."""
        computing = code == -getattr(signal, "SIGXCPU", 0)
        if expired or computing:
            return MediaError(
                f"the {self._kind} takes too long to decode",
                where=self._where,
                expected=f"at most {self._cpu_seconds} s of computing" if computing else f"at most {self._seconds:g} s",
                hint="Make it smaller or shorter first",
            )
        name = f"signal {-code}"
        with suppress(ValueError):
            name = signal.Signals(-code).name
        return MediaError(
            f"the {self._kind} ends the process that decodes it",
            where=self._where,
            found=name if code < 0 else f"exit code {code}",
            hint="It is broken, or made to break what reads it",
        )
