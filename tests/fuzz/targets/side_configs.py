"""generation_config.json and preprocessor_config.json, in a folder: typed fields, one to three of them broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.generation.defaults import MEANINGLESS, NAME, OTHERS, SAMPLING, read_defaults
from ernie_rt.modeling.vision_language import PREPROCESSOR_NEUTRAL, read_preprocessor
from fuzz.mutations import NUMBERS, changed, json_bytes, value
from fuzz.sites import ROOT
from fuzz.target import Attempt, Target
from support.configs import small

GENERATION: dict[str, Any] = {
    "do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1,
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "max_new_tokens": 64, "eos_token_id": [2, 3], "bos_token_id": 1,
}  # fmt: skip
FIELDS = (*SAMPLING, *OTHERS, *sorted(MEANINGLESS), "no_repeat_ngram_size")
IDS = (2, -1, [], [2], [-1], [60], [61], [2, "3"], [2.0], [[2]], 10**10, [2] * 1000, "2", None, [None])
LIMITS = ("min_pixels", "max_pixels")
PIXELS = (0, 1, 783, 784, 3136, 4816896, 1 << 26, (1 << 26) + 1, 3136.0, "3136")


def generation(rng: Random) -> dict[str, Any]:
    tree = dict(GENERATION)
    for name in rng.sample(sorted(tree), rng.randrange(6)):
        del tree[name]
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice((*FIELDS, "eos_token_id", "eos_token_id"))
        match name:
            case "do_sample":
                tree[name] = rng.choice((True, False, None, 0, 1, "true"))
            case "eos_token_id":
                tree[name] = rng.choice(IDS)
            case _:
                tree[name] = rng.choice((*NUMBERS, -1, 2, 50.0, "1", True, None)) if rng.random() < 0.8 else value(rng)
    return tree


def preprocessor(rng: Random, base: Mapping[str, Any]) -> dict[str, Any]:
    tree = dict(base)
    for _ in range(rng.choice((1, 1, 2, 3))):
        match rng.randrange(4):
            case 0:
                name = rng.choice(sorted(PREPROCESSOR_NEUTRAL))
                tree[name] = rng.choice((*PREPROCESSOR_NEUTRAL[name], value(rng)))
            case 1 | 2:
                tree[rng.choice(LIMITS)] = rng.choice(PIXELS)
            case _:
                edges = {rng.choice(("shortest_edge", "longest_edge", "height")): rng.choice(PIXELS)}
                tree["size"] = rng.choice((edges, edges, None, 3, [edges]))
                tree.pop(rng.choice(LIMITS), None)
    return tree


def start(scratch: Path) -> Attempt:
    config = small(model_type="ernie4_5")
    published = json.loads((ROOT / "tests/data/ernie45_vl/28B-A3B-Paddle.preprocessor_config.json").read_text())
    kinds: list[tuple[str, Callable[[Random], dict[str, Any]], Callable[[], object]]] = [
        (NAME, generation, lambda: read_defaults(scratch, config).settle({}, room=10, new_tokens=5)),
        ("preprocessor_config.json", lambda rng: preprocessor(rng, published), lambda: read_preprocessor(scratch)),
    ]

    def attempt(rng: Random) -> None:
        name, draw, read = rng.choice(kinds)
        tree = draw(rng)
        if rng.random() < 0.2:
            tree = changed(rng, tree)
        (scratch / name).write_bytes(json_bytes(rng, tree))
        read()

    return attempt


TARGET = Target(
    "side_configs",
    ("ernie_rt.generation.defaults",),
    start,
    share=3_000,
)
