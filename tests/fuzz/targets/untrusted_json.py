"""JSON itself, as strict files and others are read."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from ernie_rt.files import recognise
from ernie_rt.untrusted_json import Unusable, parse_json, usable
from fuzz.mutations import changed, changed_text, damaged, foreign, json_bytes, value
from fuzz.target import Attempt, Target

GOOD = {"a": 1, "b": [1, 2.5, "c", None, True, {"d": "é"}], "e": {"f": {"g": []}}, "": "\u2028"}


def drawn(rng: Random) -> bytes:
    match rng.randrange(8):
        case 0:
            return damaged(rng, json.dumps(GOOD).encode())
        case 1:
            return changed_text(rng, json.dumps(GOOD, ensure_ascii=False)).encode(errors="surrogatepass")
        case 2:
            return rng.choice((foreign(rng), rng.randbytes(rng.randrange(60))))
        case 3:
            return json.dumps(GOOD).encode(rng.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig", "latin-1")))
        case 4:
            return json_bytes(rng, {"a": value(rng), "b": value(rng)})
    return json_bytes(rng, changed(rng, GOOD, rng.choice((1, 1, 2, 3))))


def start(scratch: Path) -> Attempt:
    def attempt(rng: Random) -> None:
        data = drawn(rng)
        recognise(data)
        depth, signs = rng.choice((4, 16, 64)), rng.choice((None, None, 16, 64))
        tree = parse_json(data, where="x", depth=depth, strict=rng.random() < 0.5, signs=signs)
        if not isinstance(tree, Unusable):
            json.dumps(usable(tree))
        if isinstance(tree, dict):
            for each in tree.values():
                repr(each)
            if "a" in tree:
                bool(tree["a"])  # what is unusable says so

    return attempt


TARGET = Target("untrusted_json", ("ernie_rt.untrusted_json",), start, share=10_000)
