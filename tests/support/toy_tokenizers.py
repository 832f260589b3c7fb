"""Tokenizer files with a handful of pieces, for added tokens of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ernie_rt.modeling.config import parse_config
from ernie_rt.text.tokenizer import Tokenizer
from support.tokenizers import NORMAL, USER_DEFINED, serialized

Json = dict[str, Any]
SPACE = "\u2581"
NAMES = [*"abcxyz<>[]_|12", SPACE, "ab", SPACE + "a", "新", "词"]
FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
FIRST = 259 + len(NAMES)
"""The first id behind the pieces."""


def entry(content: str, **flags: bool) -> Json:
    return {"content": content, **dict.fromkeys(FLAGS, False), **flags}


def stored_json(added: dict[int, Json]) -> Json:
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *NAMES]
    special = {n: entry(name, special=True) for n, name in enumerate(names[:3])}
    return {
        "added_tokens": [{"id": id, **fields} for id, fields in (special | added).items()],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {name: id for id, name in enumerate(names)},
            "merges": [["a", "b"], [SPACE, "a"]],
        },
    }


def toy_model() -> bytes:
    """A tokenizer.model with the same pieces, of which "1" is user-defined."""
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces = ((name, -float(n), USER_DEFINED if name == "1" else NORMAL) for n, name in enumerate(NAMES))
    return serialized([*special, *bytes_, *pieces])


def write_toy(folder: Path, **settings: object) -> Tokenizer:
    """A tokenizer with these pieces, and `settings` in its tokenizer_config.json."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(toy_model())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = parse_config({"model_type": "ernie4_5", "vocab_size": FIRST + 9, "eos_token_id": 2}, "config.json")
    return Tokenizer.load(folder, config)
