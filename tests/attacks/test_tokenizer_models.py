"""SentencePiece models that somebody made, and tokens that somebody added to one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from support.attempts import accepted_each, refused_each
from support.hostile import DOORS, copied, put
from support.protobuf import field, varint


def piece(name: bytes, score: float = 0.0, kind: int = 1) -> bytes:
    return field(1, field(1, name) + b"\x15" + struct.pack("<f", score) + varint(3 << 3) + varint(kind))


def pieces(count: int, kind: bytes = b"") -> bytes:
    before, after = field(1, field(1, b"%07x" % 0) + kind).split(b"%07x" % 0)  # all are as long
    return b"".join(before + b"%07x" % number + after for number in range(count))


UNUSABLE, MANY, OTHERS = "not a usable SentencePiece model", "of too many pieces", "more tokens than the model has"
NORMALIZER, TRAINER, SELF_TEST, DENORMALIZER = 3, 2, 4, 5
ADDED: dict[str, tuple[bytes, str]] = {
    "a piece that is no text": (piece(b"\xff\xfe"), UNUSABLE),
    "a piece of half a character": (piece("文".encode()[:2]), UNUSABLE),
    "an empty piece": (piece(b""), UNUSABLE),
    "a piece with a null": (piece(b"x\0y"), UNUSABLE),
    "a piece of seven megabytes": (piece(b"a" * (7 << 20)), UNUSABLE),
    "a piece twice": (piece(b"the"), UNUSABLE),
    "a score that is no number": (piece(b"zz", float("nan")), OTHERS),
    "a score without end": (piece(b"zz", float("inf")), OTHERS),
    "a second unknown piece": (piece(b"<unk2>", 0, 2), UNUSABLE),
    "a piece of no type": (piece(b"zz", 0, 99), OTHERS),
    "a byte piece that is none": (piece(b"<0xZZ>", 0, 6), UNUSABLE),
    "a million pieces": (pieces(700_000), MANY),
    "as many pieces as may be": (pieces(200_000), OTHERS),
    "as many pieces that are matched": (pieces(150_000, b"\x18\x04"), OTHERS),
    "a million fields of nothing": (b"\xfa\x07\x00" * 1_000_000, MANY),
    "rules that are junk": (field(NORMALIZER, field(2, b"\xff" * 1000)), UNUSABLE),
    "rules of zeros": (field(NORMALIZER, field(2, bytes(8000))), UNUSABLE),
    "rules that claim four gigabytes": (field(NORMALIZER, field(2, b"\xff\xff\xff\xff" + bytes(1000))), UNUSABLE),
    "rules that end early": (field(NORMALIZER, field(2, b"\0\4\0\0" + bytes(10))), UNUSABLE),
    "rules for output that are junk": (field(DENORMALIZER, field(2, b"\xff" * 1000)), UNUSABLE),
    "a number that never ends": (b"\xff" * 1_000_000, UNUSABLE),
    "a number of 70 bits": (b"\x98\x01" + b"\x80" * 10 + b"\x01", UNUSABLE),
    "a length beyond the file": (b"\x0a" + varint(1 << 62), UNUSABLE),
    "a group that never ends": (b"\x0b" * 1000, UNUSABLE),
    "a tag of nothing": (b"\0\0", UNUSABLE),
}
HARMLESS: dict[str, bytes] = {
    "self tests that fail": field(SELF_TEST, field(1, field(1, b"hello") + field(2, b"b")) * 100_000),
    "an unknown piece elsewhere": field(TRAINER, varint(40 << 3) + varint(5)),
    "an unknown piece nowhere": field(TRAINER, varint(40 << 3) + varint((1 << 64) - 5)),
    "an algorithm of no number": field(TRAINER, varint(3 << 3) + varint(77)),
    "a text for the unknown that is none": field(TRAINER, field(44, b"\xff\xff")),
    "a field from the future": field(99, b"x" * 100_000),
}


def serialized(untrained: Path) -> bytes:
    return (untrained / "tokenizer.model").read_bytes()


def test_models(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    good = serialized(untrained)
    cases = [(put("tokenizer.model", good + added), "TokenizerError", words) for added, words in ADDED.values()]
    refused_each(DOORS["encode"], folder, cases, "tokenizer.model", size=8 << 20)


def test_what_does_no_harm(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    changes = [put("tokenizer.model", serialized(untrained) + added) for added in HARMLESS.values()]
    accepted_each(DOORS["encode"], folder, changes)


ENTRIES: dict[str, tuple[str, str]] = {
    "an id that is taken": ('{"<x>": 7}', "an impossible added token"),
    "an id beyond the vocabulary": ('{"<x>": 1000}', "an impossible added token"),
    "an id below it": ('{"<x>": -1}', "an impossible added token"),
    "an id without end": ('{"<x>": %s}' % ("9" * 4000), "an impossible added token"),
    "an id that is true": ('{"<x>": true}', "an impossible added token"),
    "an id that is half": ('{"<x>": 1.5}', "an impossible added token"),
    "an id that is text": ('{"<x>": "1"}', "an impossible added token"),
    "no text": ('{"": 999}', "an impossible added token"),
    "half a character": ('{"\\ud800": 999}', "an impossible added token"),
    "a token of a megabyte": ('{"%s": 5000}' % ("x" * 1_000_000), "an impossible added token"),
    "a hundred thousand tokens": (
        json.dumps({f"<{n}>": n for n in range(1000, 100_000)}), "an impossible added token",
    ),
}  # fmt: skip


def test_added_tokens(untrained: Path, tmp_path: Path) -> None:
    folder = copied(untrained, tmp_path / "model")
    cases = [(put("added_tokens.json", content), "TokenizerError", words) for content, words in ENTRIES.values()]
    refused_each(DOORS["encode"], folder, cases, "added_tokens.json", size=2 << 20)
