"""Receipts as they are written: one of text, and one with a picture."""

from __future__ import annotations

import copy
from typing import Any

GOOD: dict[str, Any] = {
    "receipt": 1,
    "ernie_rt": "0.1.0",
    "date": "2026-01-01T00:00:00+00:00",
    "model": {"name": "demo", "weights": "a" * 64, "graph": "b" * 64, "tokenizer": "c" * 64, "made_from": None},
    "ran": {
        "backend": "eager", "device": "cpu", "dtype": "float32", "deterministic": False, "threads": 1, "versions": [],
    },
    "options": {
        "max_new_tokens": 4, "ignore_eos": True, "stop": [], "stop_ids": [2], "temperature": 0.0, "top_k": 0,
        "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "logit_bias": [[3, 1.5]], "bad_words": [], "allowed_ids": None, "min_new_tokens": 0, "seed": None,
    },
    "prompt": [5, 6],
    "finish": "length",
    "answer": [{"id": 7, "logprob": -1.0, "top": [[7, -1.0]], "runner_up": [8, 0.5]}],
}  # fmt: skip

ITEM: dict[str, Any] = {
    "kind": "image", "start": 1, "file": "d" * 64, "given": [60, 30], "asked": {"max_pixels": 9000},
    "by": ["pillow 13.0.0"], "frames": 1, "size": [56, 28], "pixels": "e" * 64,
}  # fmt: skip
SHOWING: dict[str, Any] = GOOD | {"receipt": 2, "prompt": [5, 60, 60, 6, 60, 60, 60, 60], "items": [ITEM]}


def changed(place: str, value: object) -> dict[str, Any]:
    """The good one with another value at `a.b.0.c`, or without it where that is ...; a new key is added."""
    tree = copy.deepcopy(GOOD)
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    at: Any = tree
    for part in way:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return tree
