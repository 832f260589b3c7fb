"""Reading tokenizer.model, a SentencePiece model."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sentencepiece

from ernie_rt.errors import TokenizerError
from ernie_rt.files import FOREIGN, MIB, read_bytes, recognise
from ernie_rt.text.pieces import CONTROL_FORM, Pieces

MAX_MODEL_BYTES: Final = 8 * MIB
"""ERNIE's own has 1.6 MB."""
MOST_FIELDS: Final = 1 << 18
"""Of the model's message, of which each piece is one. ERNIE's own has 103,426."""
LONGEST_VARINT: Final = 63
"""Bits in front of the last group of seven."""

TEXT_AS_IT_IS: Final = b"\x1a\x04\x18\x00\x20\x00"
"""`normalizer_spec { add_dummy_prefix: false remove_extra_whitespaces: false }` as protobuf: field 3, 4 bytes long.

A message that occurs twice is merged, the last value winning, so these bytes after a serialized model override its
settings: where a space belongs in front of text, it is put there before (see `Spacing`).
"""

PIECES: Final = 0x0A
"""The tag of the repeated field `pieces` in a model: a message for each."""
NAME: Final = 0x0A
SCORE: Final = 0x15
TYPE: Final = 0x18
"""The tags of a piece's fields."""
TRAINER: Final = 0x12
ALGORITHM: Final = 0x18
"""The tags of `trainer_spec` in a model and of `model_type` in that."""
BPE: Final = 2
NORMALIZER: Final = 0x1A
CHARSMAP: Final = 0x12
"""The tags of `normalizer_spec` in a model and of `precompiled_charsmap` in that: text is changed by it."""
DUMMY_PREFIX: Final = 0x18
"""The tag of `add_dummy_prefix` in `normalizer_spec`; true where it is absent."""
NORMAL: Final = 1
CONTROL: Final = 3
"""Such a piece has an id, but no text is ever encoded to it."""
USER_DEFINED: Final = 4
"""Such a piece is matched wherever its text occurs."""
IS_USER_DEFINED: Final = bytes([TYPE, USER_DEFINED])
UNUSED: Final = 5
"""Such a piece is merged like any other, and taken apart again in the end."""


class SentencePieceEncoder:
    """Encodes texts with a serialized model."""

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]]
        try:
            encoded = self._processor.encode(list(texts), num_threads=1)
        except RuntimeError:  # for a list it starts a thread, which the system may not grant
            encoded = [self._processor.encode(text) for text in texts]
        return encoded


def read_sentencepiece(path: Path, named: Collection[str], plain: Collection[str] = ()) -> Pieces:
    """Read tokenizer.model; raises TokenizerError.

    Reserved are control pieces, the unknown piece, pieces `named` special, and user-defined pieces of the form `<…>`
    that are not said to be `plain`; the last two kinds are made control pieces, whatever type the model gives them.
    """
    where = str(path)
    data = read_bytes(path, MAX_MODEL_BYTES)
    try:
        places, dummy_prefix = _scan(data, where)
    except (IndexError, KeyError, OverflowError) as error:
        raise _unusable(data, where, error) from error
    processor = _load(data, where)
    try:
        ids = list(range(processor.GetPieceSize()))
        names: list[str] = processor.IdToPiece(ids)
        byte_ids = frozenset(id for id, byte in enumerate(processor.IsByte(ids)) if byte)
        reserved = {id for id in ids if processor.IsControl(id) or processor.IsUnknown(id)}
    except Exception as error:  # an id or a name that C++ gives and Python cannot take
        raise _unusable(data, where, error) from error
    user_defined = {id for id, (_, body, end) in enumerate(places) if _is_user_defined(data, body, end)}
    controls = {id for id in user_defined if re.fullmatch(CONTROL_FORM, names[id]) and names[id] not in plain}
    controls |= {id for id, name in enumerate(names) if name in named}
    controls -= reserved | byte_ids
    if controls:
        processor = _load(_retype(data, [places[id] for id in sorted(controls)]), where)
    return Pieces(
        dict(enumerate(names)),
        byte_ids,
        frozenset(reserved | controls),
        SentencePieceEncoder(processor),
        frozenset(user_defined - controls),
        dummy_prefix,
    )


@dataclass(frozen=True, slots=True)
class Merges:
    """What a BPE model merges by. `scores` are those of the normal pieces: of two pieces the higher is merged first."""

    names: tuple[str, ...]
    scores: Mapping[str, float]
    matched: tuple[str, ...]
    """User-defined pieces: found in text before anything is merged, and never merged."""


def read_merges(path: Path) -> Merges:
    """Read the scores and types of a tokenizer.model that `read_sentencepiece` has read.

    TokenizerError for a model that is not byte-pair encoding, changes characters first, or has unused pieces.
    """
    data = read_bytes(path, MAX_MODEL_BYTES)
    pieces: list[tuple[str, float, int]] = []
    algorithm: int | None = None
    rules = 0
    try:
        for tag, _, start, end in _fields(data, 0, len(data)):
            if tag == PIECES:
                pieces.append(_piece(data, start, end))
            elif tag == TRAINER:
                algorithm = _integer(data, start, end, ALGORITHM)
            elif tag == NORMALIZER:
                rules += sum(after - body for field, _, body, after in _fields(data, start, end) if field == CHARSMAP)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise TokenizerError(
            "not a usable SentencePiece model", where=str(path), hint="Fetch the file again"
        ) from error
    unused = sum(kind == UNUSED for _, _, kind in pieces)
    for number, what in (
        (algorithm != BPE, "another algorithm"),
        (rules, f"{rules} bytes of rules that change characters"),
        (unused, f"{unused} unused pieces"),
    ):
        if number:
            raise TokenizerError(
                "a SentencePiece model that a list of merges cannot stand for",
                where=str(path),
                expected="byte-pair encoding of the text as it is",
                found=what,
            )
    return Merges(
        tuple(name for name, _, _ in pieces),
        {name: score for name, score, kind in pieces if kind == NORMAL},
        tuple(name for name, _, kind in pieces if kind == USER_DEFINED),
    )


def _piece(data: bytes, start: int, end: int) -> tuple[str, float, int]:
    """Name, score and type of a piece."""
    name, score, kind = b"", 0.0, NORMAL
    for tag, _, body, after in _fields(data, start, end):
        if tag == NAME:
            name = data[body:after]
        elif tag == SCORE:
            (score,) = struct.unpack_from("<f", data, body)
        elif tag == TYPE:
            kind, _ = _read_varint(data, body)
    return name.decode(), score, kind


def _load(data: bytes, where: str) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data + TEXT_AS_IT_IS)
    except Exception as error:  # whatever a parser in C++ makes of a stranger's bytes
        raise _unusable(data, where, error) from error
    return processor


def _unusable(data: bytes, where: str, error: Exception) -> TokenizerError:
    kind = recognise(data)
    return TokenizerError(
        "not a usable SentencePiece model",
        where=where,
        found=kind or f"{type(error).__name__}: {str(error)[:200]}",
        hint="Fetch the file again" if kind is None else FOREIGN[kind],
    )


def _scan(data: bytes, where: str) -> tuple[list[tuple[int, int, int]], bool]:
    """Where each piece's field, its message and the next field begin; and whether a space is put in front of text.

    Before the library makes pieces of them: TokenizerError for more than any model here has.
    """
    places: list[tuple[int, int, int]] = []
    dummy_prefix = True
    for number, (tag, start, body, end) in enumerate(_fields(data, 0, len(data))):
        if number >= MOST_FIELDS:
            raise TokenizerError(
                "a SentencePiece model of too many pieces", where=where, expected=f"at most {MOST_FIELDS}"
            )
        if tag == PIECES:
            places.append((start, body, end))
        elif tag == NORMALIZER:
            said = _integer(data, body, end, DUMMY_PREFIX)
            dummy_prefix = dummy_prefix if said is None else bool(said)
    return places, dummy_prefix


def _is_user_defined(data: bytes, body: int, end: int) -> bool:
    # Most pieces do not have these two bytes, and need not be taken apart.
    return data.find(IS_USER_DEFINED, body, end) >= 0 and _integer(data, body, end, TYPE) == USER_DEFINED


def _retype(data: bytes, places: Iterable[tuple[int, int, int]]) -> bytes:
    """The model with control pieces at `places`."""
    parts: list[bytes] = []
    kept = 0
    for start, body, end in places:
        message = data[body:end] + bytes([TYPE, CONTROL])  # of a field that occurs twice the last value counts
        parts += [data[kept:start], bytes([PIECES]), _varint(len(message)), message]
        kept = end
    return b"".join([*parts, data[kept:]])


def _integer(data: bytes, start: int, end: int, wanted: int) -> int | None:
    """The field with the tag `wanted` of a message: the last one counts."""
    values = [_read_varint(data, body)[0] for tag, _, body, _ in _fields(data, start, end) if tag == wanted]
    return values[-1] if values else None


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a serialized message: tag, and where the field, its value and the next field begin."""
    while position < end:
        start = position
        tag, body = _read_varint(data, start)
        match tag & 7:
            case 0:
                _, position = _read_varint(data, body)
            case 2:
                size, body = _read_varint(data, body)
                position = body + size
            case wire:
                position = body + {1: 8, 5: 4}[wire]
        yield tag, start, body, position


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        if shift == LONGEST_VARINT:
            raise OverflowError("a number of more than 64 bits")
        shift += 7


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
