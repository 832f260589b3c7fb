"""Many thousands of pictures and videos that were changed at random: read, or refused by a MediaError, and soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from ernie_rt.errors import MediaError
from ernie_rt.vision.decoding import MEMORY_BYTES, PROGRAM
from ernie_rt.vision.formats import HEAD_BYTES, Kind, format_of
from ernie_rt.vision.frames import chosen_frames
from ernie_rt.vision.grid import MAX_PIXELS, MIN_PIXELS, size_of
from ernie_rt.vision.image import check_size, load_image
from ernie_rt.vision.item import Item
from ernie_rt.vision.timestamps import timestamp
from ernie_rt.vision.video import load_video
from ernie_rt.worker import Worker, folders_of
from support.changed_media import changed


class Child:
    """The process that decodes, asked for one picture or video after the other."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        limits = [str(MEMORY_BYTES), "600", "3"]
        self._worker = Worker(["-c", PROGRAM], [kind, *limits, *folders_of("ernie_rt", "PIL", "av")], "decode", "")

    def load(self, data: bytes) -> str:
        """What `load_image` and `load_video` do, without a process for each: nothing, or why it is refused."""
        try:
            given = {"format": format_of(data[:HEAD_BYTES], self._kind, None), "threads": 4}
            about = self._ask({"open": given}, data)
            if self._kind == "picture":
                self._ask({"size": check_size(about["size"], None, MIN_PIXELS, MAX_PIXELS)})
            else:
                size = size_of(*about["size"], max_pixels=28**2)
                chosen = chosen_frames(about["frames"], about["fps"])
                for index in chosen:
                    self._ask({"size": size, "index": index, "chosen": chosen, "text": timestamp(index / about["fps"])})
        except MediaError as error:
            return str(error)
        return ""

    def end(self) -> None:
        self._worker.end()

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
        taken, answer = self._worker.ask(json.dumps(request).encode() + b"\n" + data, 30, 1 << 28)
        assert taken and answer is not None, self._worker.end()
        told: dict[str, Any] = json.loads(answer.partition(b"\n")[0])
        if "error" in told:
            raise MediaError("broken", found=told["error"])
        return told


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "seed", "count", "seconds"),
    [*(("picture", seed, 5000, 1.0) for seed in range(20)), *(("video", seed, 500, 20.0) for seed in range(4))],
)
def test_thousands_of_changed_ones(kind: Kind, seed: int, count: int, seconds: float) -> None:
    child = Child(kind)
    refused, slowest = 0, 0.0
    try:
        for data in islice(changed(kind, seed), count):
            began = time.monotonic()
            refused += bool(child.load(data))
            slowest = max(slowest, time.monotonic() - began)
    finally:
        child.end()
    print(f"{refused} of {count} are refused, the slowest took {slowest:.2f} s")
    assert slowest < seconds and 0.1 * count < refused < 0.95 * count


@pytest.mark.long
@pytest.mark.parametrize(("kind", "load", "count"), [("picture", load_image, 300), ("video", load_video, 60)])
def test_hundreds_in_a_process_each(kind: Kind, load: Callable[[bytes], Item], count: int) -> None:
    for data in islice(changed(kind, 99), count):
        try:
            load(data)
        except MediaError as error:
            assert "ends the process" not in str(error), data
