"""The tokenizer of demo-vl: the words of its curriculum, and the tokens that ERNIE 4.5-VL adds for pictures."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from demo.tokenizer import COMMON_HANZI, train_tokenizer, write_files
from demo_vl.curriculum import draw_any

PIECES: Final = 1000
MAX_LETTERS: Final = 12
PLACEHOLDER: Final = "<|IMAGE_PLACEHOLDER|>"
ADDED: Final = (
    PLACEHOLDER,
    "<|AUDIO_PLACEHOLDER|>",
    "<|IMAGE_START|>",
    "<|IMAGE_END|>",
    "<|VIDEO_START|>",
    "<|VIDEO_END|>",
)
"""In ERNIE's order. Those from the placeholder on belong to the experts of vision."""
ROWS: Final = 1024
"""Rows of the embedding: more than there are ids, as with ERNIE."""
SAMPLES: Final = 2000
TEMPLATE: Final = Path(__file__).with_name("chat_template.jinja")
"""ERNIE 4.5-VL's way of naming pictures, without its thinking."""


def _lines() -> Iterator[str]:
    rng = random.Random(45)
    for _ in range(SAMPLES):
        for turn in draw_any(rng, 1.0).turns:
            yield f"User: {turn.prompt}"
            yield f"Assistant: {turn.answer}"
    yield from ["Picture ", "Video ", "1:", "2:"] * 500
    yield from COMMON_HANZI
    yield from (string.ascii_letters + string.digits + string.punctuation) * 10
    yield from "，。？！、；：（）《》「」"


def write_tokenizer(folder: Path) -> None:
    write_files(folder, train_tokenizer(_lines(), PIECES, MAX_LETTERS), PIECES, ADDED, TEMPLATE)
