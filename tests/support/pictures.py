"""Pictures for tests, and applications that show them to a model which says what it is told to say."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

import ernie_rt
from ernie_rt import Model
from ernie_rt.worker import Worker
from support.scripted import scripted
from support.serving import SETTINGS, ScriptedModel, scripted_app
from support.vision_checkpoint import write_vision_checkpoint


def picture(width: int = 56, height: int = 56, format: str = "PNG", seed: int = 0) -> bytes:
    """A file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels), format)


def blank(width: int, height: int) -> bytes:
    """A small file of one colour, however large the picture is."""
    return encoded(Image.new("1", (width, height)), "PNG")


def encoded(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def uri(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


@contextmanager
def seeing_model(folder: Path) -> Iterator[Model]:
    """A model that takes in pictures, written to `folder`; it answers each prompt by the token 400."""
    host = scripted()
    backend: Any = host.backend("scripted")
    backend.answers = Endless()
    with ernie_rt.load(
        write_vision_checkpoint(folder), backend="scripted", host=host, max_context=512, max_sequences=4
    ) as model:
        yield model


class Endless(list[list[int]]):
    def pop(self, index: Any = -1) -> list[int]:
        return [400, 2]


def seeing_app(model: Model, *scripts: Any, settings: Any = SETTINGS) -> tuple[Starlette, ScriptedModel]:
    """An application whose answers follow scripts; `asked` has the prompts that were made."""
    app, served = scripted_app(model, *scripts, settings=settings)
    served.stats = model.engine.stats  # type: ignore[attr-defined]
    return app, served


@contextmanager
def kept_workers() -> Iterator[None]:
    """Files are decoded in child processes that stay for the next file: to start one takes longer than all else."""
    kept = KeptWorkers()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ernie_rt.vision.decoding.Worker", kept)
            yield
    finally:
        kept.end()


MOST_FILES = 50
"""That one process decodes: what it may compute is for one."""


class KeptWorkers:
    def __init__(self) -> None:
        self._idle: dict[str, list[tuple[Worker, int]]] = {"picture": [], "video": []}

    def __call__(self, script: Any, arguments: Any, *words: Any) -> KeptWorker:
        idle = self._idle[arguments[0]]
        return KeptWorker(*(idle.pop() if idle else (Worker(script, arguments, *words), MOST_FILES)), idle)

    def end(self) -> None:
        for worker, _ in chain(*self._idle.values()):
            worker.end()


class KeptWorker:
    """One that is at a file; it comes back to those that are idle if it has answered all that it was asked, and may
    have more files."""

    def __init__(self, worker: Worker, files: int, idle: list[tuple[Worker, int]]) -> None:
        self._worker, self._files, self._idle = worker, files, idle
        self._well = True

    def ask(self, *asked: Any) -> tuple[bool, bytes | None]:
        self._well = False
        taken, answer = self._worker.ask(*asked)
        self._well = answer is not None
        return taken, answer

    def end(self, kept: bool = True) -> tuple[bool, int]:
        if not (kept and self._well) or self._files == 1:
            return self._worker.end()
        self._idle.append((self._worker, self._files - 1))
        return False, 0
