"""Pictures and videos through the library's own door: files changed at random, arrays, paths, limits of all kinds.

Decoding is done by child processes, which stay for the next file here.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from PIL import Image

from ernie_rt.errors import MediaError
from ernie_rt.vision import decoding
from ernie_rt.vision.formats import FORMATS, OTHERS, Kind
from ernie_rt.vision.image import load_image
from ernie_rt.vision.item import Item
from ernie_rt.vision.video import load_video
from fuzz.chains import one_of
from fuzz.mutations import BORDERS, TEXTS, changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.changed_media import mutated, pictures, sealed, videos
from support.media import noise, png
from support.pictures import KeptWorker, KeptWorkers

WHOLE: Final[dict[Kind, list[tuple[str, bytes]]]] = {"picture": pictures(), "video": videos()[:3]}
SIZES: Final = (
    (0, 5),
    (5, 0),
    (1, 300),
    (300, 1),
    (9, 9),
    (40_000, 1),
    (70_000, 70_000),
    (1 << 31, 1),
    (20_000, 20_000),
)
ODD: Final = (
    None, 5, 1.5, [], {}, b"", "", "https://example.com/a.png", "data:image/png;base64,AAAA", "FILE:///etc/passwd",
    "nowhere",
    "~nobody-at-all/x.png", ".", "/dev/zero", "/proc/self/mem", "pipe",
    "large", "link", "a\0b", "x" * 5000, object(), bytearray(b"x"),
)  # fmt: skip
NUMBERS: Final = (*BORDERS, -1, 0.5, 2.0, 784, 1e308, float("nan"), True, None, "1", np.int32(5), 10**5000)


PIXELS: Final = np.zeros((2, 30, 30, 3), np.uint8)
WRONG: Final[tuple[tuple[Kind, Any, dict[str, Any]], ...]] = (
    ("picture", "large", {}), ("video", "large", {}), ("video", Path("nowhere"), {}), ("video", None, {}),
    ("video", PIXELS, {"fps": float("nan")}), ("video", PIXELS, {"max_frames": 10**5000}), ("picture", PIXELS, {}),
    ("picture", "~nobody-at-all/x", {}), ("picture", PIXELS[0], {"max_pixels": 0}), ("picture", noise(1, 300), {}),
)  # fmt: skip
"""What cannot be, each in a way of its own."""


class Lying(KeptWorkers):
    """Processes that answer as if what they decode had taken them over, while there is a `lie`."""

    def __init__(self) -> None:
        super().__init__()
        self.lie: Random | None = None

    def __call__(self, *arguments: Any) -> Any:
        worker = super().__call__(*arguments)
        return worker if self.lie is None else Liar(worker, self.lie)


class Liar:
    def __init__(self, worker: KeptWorker, rng: Random) -> None:
        self._worker, self._rng = worker, rng
        self._true = rng.choice((0, 1))
        """How many answers are still true."""

    def ask(self, *asked: Any) -> tuple[bool, bytes | None]:
        taken, answer = self._worker.ask(*asked)
        self._true -= 1
        return taken, answer if answer is None or self._true >= 0 else self._lie(answer)

    def _lie(self, answer: bytes) -> bytes:
        line, _, data = bytes(answer).partition(b"\n")
        rng = self._rng
        match rng.choice((0, 1, 1, 1, 2, 3, 3)):
            case 0:
                line = json_bytes(rng, changed(rng, json.loads(line)))
            case 1:
                more = rng.choice(({}, {}, {"frames": 1}, {"fps": 1.0}, {"fps": value(rng)}))
                line = json_bytes(rng, {"size": rng.choice(([9, 9], [3, value(rng)])), **more})
            case 2:
                line = damaged(rng, line)
            case _:
                data = rng.choice((data[:-1], data + b"x", b""))
        return line + b"\n" + data

    def end(self) -> tuple[bool, int]:
        return self._worker.end(kept=False)  # it may be in the middle of something


def start(folder: Path) -> Attempt:
    workers = Lying()
    decoding.Worker = workers  # type: ignore[assignment, misc]
    os.chdir(folder)
    os.mkfifo("pipe")
    Path("link").symlink_to("/etc/passwd")
    with Path("large").open("wb") as file:
        file.truncate(1 << 30)
    load(Random(0), "picture", WHOLE["picture"][0][1], {})

    def attempt(rng: Random) -> None:
        kind: Kind = "video" if rng.random() < 0.2 else "picture"
        source, given = drawn(rng, kind), limits(rng, kind)
        if rng.random() < 0.15:
            kind, source, given = rng.choice(WRONG)
        if isinstance(source, bytes) and rng.random() < 0.2:
            Path("file").write_bytes(source)
            source = rng.choice(("file", Path("file")))
        workers.lie = rng if rng.random() < (0.08 if kind == "picture" else 0.8) else None
        try:
            item = load(rng, kind, source, given)
        except MediaError as error:
            assert workers.lie or "ends the process" not in str(error), "the decoder died"  # of what it was asked then
            raise one_of(error, rng) or error from None
        assert item.tokens >= 1 and item.frames.dtype == np.uint8

    return attempt


def load(rng: Random, kind: Kind, source: Any, given: dict[str, Any]) -> Item:
    if kind == "picture":
        return load_image(source, **given)
    return load_video(source, max_pixels=28**2 * rng.choice((1, 4)), **given)


def limits(rng: Random, kind: Kind) -> dict[str, Any]:
    if rng.random() < 0.7:
        return {}
    names = ("min_pixels", "max_pixels") if kind == "picture" else ("fps", "min_frames", "max_frames")
    return {rng.choice(names): rng.choice(NUMBERS)}


def drawn(rng: Random, kind: Kind) -> Any:
    match rng.randrange(10):
        case 0:
            return rng.choice((*ODD, rng.choice(TEXTS)))
        case 1 if rng.random() < 0.2:
            whole = WHOLE["picture"][0][1]
            return Image.open(io.BytesIO(whole[: len(whole) - rng.choice((0, 200))]))
        case 1:
            array = noise(rng.choice((0, 1, 9, 300)), rng.choice((1, 9, 300)))
            array = array if kind == "picture" or rng.random() < 0.3 else array[None]
            return rng.choice(
                (array, array[..., :2], array.astype(np.float32), array[0] if len(array) else array, array)
            )
        case 2:
            width, height = rng.choice(SIZES)
            return png(width, height)
        case 3:
            head = rng.choice((*FORMATS["picture"].values(), *FORMATS["video"].values(), *OTHERS.values()))
            return head.replace(b".{4}", b"\0\0\0\x18").replace(b"\\", b"") + rng.randbytes(rng.choice((0, 60, 2000)))
    form, whole = rng.choice(WHOLE[kind])
    data = mutated(whole, rng) if rng.random() < 0.8 else whole
    return sealed(data) if form == "PNG" and rng.random() < 0.7 else data


TARGET = Target(
    "media",
    (
        "ernie_rt.vision.decoding",
        "ernie_rt.vision.formats",
        "ernie_rt.vision.frames",
        "ernie_rt.vision.grid",
        "ernie_rt.vision.image",
        "ernie_rt.vision.sources",
        "ernie_rt.vision.video",
    ),
    start,
    share=450,
    excused={
        "is not installed": "Pillow and PyAV are installed",
        "self._stopped": "no decoder dies or hangs, which is what is looked for",
        "the picture has no pixels": "no decoder takes a header that says so",
        "more patches than a step": "there is no model here; tests/text/test_media.py has it",
        "found=error.strerror": "the disk gives what it has",
    },
)
