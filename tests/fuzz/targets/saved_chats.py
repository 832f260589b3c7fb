"""Conversations that `chat` has saved, and token ids of prompts beside the pictures that they show."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from ernie_rt.generation.prompt import check_ids, has_parts
from ernie_rt.modeling.config import parse_config
from ernie_rt.text.media import Media
from ernie_rt.text.transcript import FORMAT, read_transcript, write_transcript
from fuzz.mutations import TEXTS, changed, damaged, json_bytes, value
from fuzz.target import Attempt, Target
from support.configs import DENSE
from support.vision_checkpoint import CONFIG

TEXT: Final = parse_config(DENSE, "config.json")
SEES: Final = parse_config(CONFIG, "config.json")
SAVED: Final[dict[str, Any]] = {
    "format": FORMAT,
    "model": "demo",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image", "image": "/a.png"}]},
        {"role": "assistant", "content": "", "reasoning": "Hm.", "tool_calls": [
            {"type": "function", "id": "a", "function": {"name": "look_up", "arguments": {"what": "猫"}}},
        ]},
        {"role": "tool", "content": "one", "tool_call_id": "a", "name": "look_up"},
        {"role": "user", "content": [{"type": "video", "video": "b.mp4", "fps": 1.5, "max_frames": 8}]},
    ],
}  # fmt: skip


class Shown:
    """A picture of so many tokens."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens


def start(folder: Path) -> Attempt:
    path, again = folder / "chat.json", folder / "again.json"

    def attempt(rng: Random) -> None:
        if rng.random() < 0.4:
            prompt(rng)
            return
        tree = changed(rng, SAVED, rng.choice((1, 1, 2, 3)))
        if rng.random() < 0.1:
            tree = rng.choice(({}, {"format": FORMAT}, {**SAVED, "messages": value(rng)}, {**SAVED, "messages": []}))
        data = json_bytes(rng, tree)
        path.write_bytes(damaged(rng, data) if rng.random() < 0.1 else data)
        messages = read_transcript(path)
        if messages:
            write_transcript(again, "demo", messages, overwrite=True)
            assert [repr(each) for each in read_transcript(again)] == [repr(absolute(each)) for each in messages]

    return attempt


def absolute(message: Any) -> Any:
    """Paths are written so that they lead to the same file from everywhere."""
    parts = tuple(
        Media(part.kind, Path(part.source).absolute(), part.max_pixels, part.fps, part.max_frames)
        if isinstance(part, Media)
        else part
        for part in message.parts
    )
    return message if isinstance(message.content, str) else type(message)(**{**fields(message), "content": parts})


def fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__slots__}


def prompt(rng: Random) -> None:
    """Ids of a prompt: of any type, and those that stand for a picture where there is one, or is none."""
    config = rng.choice((TEXT, SEES, SEES, SEES.text_alone))
    ids: Any = [rng.randrange(config.text_vocab_size) for _ in range(rng.randrange(8))]
    items = []
    if config.sees is not None and rng.random() < 0.6:
        start, shown = rng.randrange(len(ids) + 1), Shown(rng.randrange(1, 4))
        ids[start:start] = [config.sees.image_token_id] * (shown.tokens + rng.choice((0, 0, 0, 1, -1)))
        items.append((start + rng.choice((0, 0, 0, 1)), shown))
    if rng.random() < 0.3:
        odd = (
            -1,
            config.vocab_size,
            config.text_vocab_size,
            config.text_vocab_size,
            True,
            None,
            1.5,
            "x",
            np.int64(3),
            10**5000,
            -(10**5000),
            [1],
        )
        ids.insert(rng.randrange(len(ids) + 1), rng.choice(odd))
    if rng.random() < 0.2:
        ids = rng.choice((bytes([1, 2]), bytearray(2), iter(ids), np.array([1, 2]), "ab", rng.choice(TEXTS), None, 5))
    given = check_ids(config, ids, items)  # type: ignore[arg-type]
    assert all(type(id) is int and 0 <= id < config.vocab_size for id in given)
    assert not has_parts(given)


TARGET = Target(
    "saved_chats",
    ("ernie_rt.text.transcript", "ernie_rt.generation.prompt"),
    start,
    share=3000,
)
