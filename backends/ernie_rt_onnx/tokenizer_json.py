"""tokenizer.json from a checkpoint's tokenizer files: the form that other runtimes read.

SentencePiece merges two neighbours wherever their joined text is a piece, the piece of the highest score first and of
equal ones the leftmost. The list of merges says the same: every way of cutting a piece into two pieces, in the order of
the pieces' scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import member, read_json
from ernie_rt.location import Located
from ernie_rt.text.added_tokens import AddedToken, Spacing
from ernie_rt.text.pieces import SPACE
from ernie_rt.text.sentencepiece_model import read_merges
from ernie_rt.text.tokenizer_json import MAX_BYTES, MOST_SIGNS

Merge = tuple[str, str]

UNKNOWN: Final = "<unk>"
SPELLED: Final[Mapping[str, object]] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
FRONT: Final[Mapping[str, object]] = {"type": "Prepend", "prepend": SPACE}
SHOWN: Final[Sequence[Mapping[str, object]]] = (
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
)


def tokenizer_json(located: Located) -> dict[str, Any]:
    """The contents of a tokenizer.json that gives the ids of `located.tokenizer`; raises TokenizerError.

    Two differences are meant. Whoever reads such a file finds special tokens in any text, where `Tokenizer.encode`
    takes them for characters; and a run of bytes that is no UTF-8 comes out as one U+FFFD for each. A third cannot be
    helped: pieces of equal score, which training never makes, are merged from left to right by SentencePiece and one
    after the other by a list of merges.
    """
    tokenizer = located.tokenizer
    assert located.folder is not None
    spacing = tokenizer.spacing
    names, merges, matched = _read(located.folder, tokenizer.reserved)
    special = [replace(token, special=token.id in tokenizer.special) for token in tokenizer.specials]
    tokens = (*special, *tokenizer.added)
    vocabulary = {name: id for id, name in names.items()} | {
        token.content: token.id for token in tokens if token.id not in names
    }
    spelled = [_spelled(name, vocabulary[name], spacing) for name in matched]
    added = {token.id: {"id": token.id, "content": token.content, **token.flags} for token in (*spelled, *tokens)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added[id] for id in sorted(added)],
        "normalizer": _normalizer(spacing),
        "pre_tokenizer": _pre_tokenizer(spacing),
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                *SHOWN,
                *([{"type": "Strip", "content": " ", "start": spacing.strip, "stop": 0}] if spacing.strip else []),
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN if UNKNOWN in tokenizer.reserved else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }


def _normalizer(spacing: Spacing) -> Mapping[str, object] | None:
    steps = [*([FRONT] if spacing.prepend else []), *([SPELLED] if spacing.spelled else [])]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps} if steps else None


def _pre_tokenizer(spacing: Spacing) -> Mapping[str, object] | None:
    if spacing.spelled and spacing.metaspace == "never":
        return None
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": spacing.metaspace, "split": False}


def _spelled(name: str, id: int, spacing: Spacing) -> AddedToken:
    """A piece with spaces that is matched in text, as a token to be found where spaces are spelled as pieces do."""
    if not spacing.spelled or spacing.prepend:
        raise TokenizerError(
            "a piece with spaces that are matched after one was put in front",
            found=ascii(name),
            hint="A tokenizer.json cannot say it",
        )
    return AddedToken(name, id, special=False, normalized=True)


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
    """The pieces by id, their merges, and the pieces with spaces that are found in text before anything is merged.

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
        matched = [name for name in model.matched if SPACE in name and name not in reserved]
        return dict(enumerate(model.names)), merges_of(scores), matched
    data = read_json(member(folder, "tokenizer.json", missing=TokenizerError), limit=MAX_BYTES, signs=MOST_SIGNS)
    return _from_json(data, reserved)


def _from_json(data: Mapping[str, Any], reserved: Mapping[str, int]) -> tuple[dict[int, str], list[Merge], list[str]]:
    names: dict[int, str] = {id: name for name, id in data["model"]["vocab"].items()}
    pairs: Iterable[Any] = data["model"]["merges"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in pairs]
    apart = {*reserved, *(f"<0x{byte:02X}>" for byte in range(256))}
    return names, [(left, right) for left, right in merges if apart.isdisjoint((left, right, left + right))], []
