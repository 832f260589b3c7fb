"""Pictures for tests, and applications that show them to a model which says what it is told to say."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette

import ernie_rt
from ernie_rt import Model
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
