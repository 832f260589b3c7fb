"""Receipts: what somebody hands over to have it replayed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.receipts.reading import read_receipt
from fuzz.mutations import NUMBERS, changed, json_bytes, value
from fuzz.target import Attempt, Target
from support.receipts import GOOD, ITEM, SHOWING

FILM = ITEM | {"kind": "video", "start": 4, "frames": 4, "file": None, "asked": {"fps": 2.0, "max_frames": 9}}
RECEIPTS: tuple[dict[str, Any], ...] = (
    GOOD,
    SHOWING | {"items": [ITEM, FILM]},
    GOOD | {"text": {"prompt": "a", "answer": "b"}},
    GOOD | {"options": GOOD["options"] | {"temperature": 0.7, "seed": 5}},
)


def receipt(rng: Random) -> Any:
    tree: dict[str, Any] = changed(rng, rng.choice(RECEIPTS), rng.choice((1, 1, 1, 2, 3)))
    if not isinstance(tree, dict):
        return tree
    match rng.randrange(12):
        case 0:
            tree["receipt"] = rng.choice((3, *NUMBERS, True, "1", None))
        case 1:
            item = ITEM | {rng.choice(("start", "frames")): rng.choice((0, 1, 2, 3, 4, 7, 8, 9, -1, 1 << 62))}
            item |= {"size": rng.choice(([56, 28], [56, 28], [27, 28], [1 << 62, 28], [0, 28], []))}
            return SHOWING | {"items": [item, rng.choice((item, FILM | {"start": rng.randrange(9)}))]}
        case 2:
            tree["options"] = changed(rng, GOOD["options"])
        case 3:
            tree[rng.choice(("x", "\x1b[2J", "path"))] = value(rng)
        case 4:
            tree = {**GOOD, "options": {**GOOD["options"], rng.choice(sorted(GOOD["options"])): rng.choice(NUMBERS)}}
    return tree


def start(scratch: Path) -> Attempt:
    path = scratch / "file.json"

    def attempt(rng: Random) -> None:
        path.write_bytes(json_bytes(rng, receipt(rng)))
        read_receipt(path).to_json()

    return attempt


TARGET = Target("receipts", ("ernie_rt.receipts.reading",), start, share=2_000)
