"""tokenizer.json from a checkpoint's tokenizer files: the form that other runtimes read.

SentencePiece merges two neighbours wherever their joined text is a piece, the piece of the highest score first and of
equal ones the leftmost. The list of merges says the same: every way of cutting a piece into two pieces, in the order of
the pieces' scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import member, read_json
from ernie_rt.location import Located
from ernie_rt.text.pieces import SPACE
from ernie_rt.text.sentencepiece_model import read_merges
from ernie_rt.text.tokenizer_json import MAX_BYTES

Merge = tuple[str, str]

UNKNOWN: Final = "<unk>"
SPELLED: Final[Mapping[str, object]] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
SHOWN: Final[Mapping[str, object]] = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}


def tokenizer_json(located: Located) -> dict[str, Any]:
    """The contents of a tokenizer.json that gives the ids of `located.tokenizer`; raises TokenizerError.

    Two differences are meant. Whoever reads such a file finds special tokens in any text, where `Tokenizer.encode`
    takes them for characters; and a run of bytes that is no UTF-8 comes out as one U+FFFD for each. A third cannot be
    helped: pieces of equal score, which training never makes, are merged from left to right by SentencePiece and one
    after the other by a list of merges.
    """
    tokenizer = located.tokenizer
    assert located.folder is not None
    reserved = tokenizer.reserved
    names, merges, matched = _read(located.folder, reserved)
    vocabulary = {name: id for id, name in names.items()} | dict(reserved)
    added = {id: _added(id, name, id in tokenizer.special, False) for name, id in reserved.items()}
    added |= {vocabulary[name]: _added(vocabulary[name], name, False, True) for name in matched}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added[id] for id in sorted(added)],
        "normalizer": SPELLED,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": SHOWN,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN if UNKNOWN in reserved else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }


def merges_of(scores: Mapping[str, float]) -> list[Merge]:
    """The merges of pieces with scores, in the order in which they apply.

    Which of the cuts of one piece comes first makes no difference.
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    return [
        (name[:cut], name[cut:])
        for name in ranked
        for cut in range(1, len(name))
        if name[:cut] in scores and name[cut:] in scores
    ]


def _read(folder: Path, reserved: Mapping[str, int]) -> tuple[dict[int, str], list[Merge], list[str]]:
    """The pieces by id, their merges, and the pieces that are found in text before anything is merged.

    `located.tokenizer` has read the same files and found them good.
    """
    if os.path.lexists(folder / "tokenizer.model"):
        path = member(folder, "tokenizer.model", missing=TokenizerError)
        model = read_merges(path)
        scores = {name: score for name, score in model.scores.items() if name not in reserved}
        lost = sorted({character for name in scores for character in name} - scores.keys() - {*model.matched})
        if lost:
            raise TokenizerError(
                "a piece of characters that are no pieces",
                where=str(path),
                found=ascii(next(name for name in scores if lost[0] in name)),
                hint="A tokenizer.json cannot say it",
            )
        matched = [name for name in model.matched if len(name) > 1 and name not in reserved]
        return dict(enumerate(model.names)), merges_of(scores), matched
    data = read_json(member(folder, "tokenizer.json", missing=TokenizerError), limit=MAX_BYTES)
    return _from_json(data, reserved)


def _from_json(data: Mapping[str, Any], reserved: Mapping[str, int]) -> tuple[dict[int, str], list[Merge], list[str]]:
    names: dict[int, str] = {id: name for name, id in data["model"]["vocab"].items()}
    pairs: Iterable[Any] = data["model"]["merges"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in pairs]
    apart = {*reserved, *(f"<0x{byte:02X}>" for byte in range(256))}
    kept = [(left, right) for left, right in merges if apart.isdisjoint((left, right, left + right))]
    added = [names.get(entry["id"]) for entry in data.get("added_tokens") or []]
    matched = [name for name in added if name is not None and name not in apart]
    return names, kept, matched


def _added(id: int, content: str, special: bool, normalized: bool) -> dict[str, object]:
    """An added token: found in the text as it came, or in the `normalized` one whose spaces are spelled out."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": id, "content": content, **flags, "normalized": normalized, "special": special}
