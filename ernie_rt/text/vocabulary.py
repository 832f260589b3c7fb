"""What the tokenizer files of a checkpoint say: the SentencePiece model, the added tokens, and which are special."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sentencepiece

from ernie_rt.errors import TokenizerError
from ernie_rt.files import FOREIGN, MIB, member, read_bytes, read_json, recognise

MAX_MODEL_BYTES: Final = 8 * MIB
"""ERNIE's own has 1.6 MB."""
MAX_JSON_BYTES: Final = 4 * MIB

SPACE: Final = "\u2581"
"""How a piece spells a space."""

TEXT_AS_IT_IS: Final = b"\x1a\x04\x18\x00\x20\x00"
"""`normalizer_spec { add_dummy_prefix: false remove_extra_whitespaces: false }` as protobuf: field 3, 4 bytes long.

A message that occurs twice is merged, the last value winning, so these bytes after a serialized model override its
settings. ERNIE's text gets no space in front and keeps those it has.
"""

PIECES: Final = 0x0A
"""The tag of the repeated field `pieces` in a model: a message for each."""
TYPE: Final = 0x18
"""The tag of the field `type` in a piece's message."""
CONTROL: Final = 3
"""Such a piece has an id, but no text is ever encoded to it."""
USER_DEFINED: Final = 4
"""Such a piece is matched wherever its text occurs."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a checkpoint. `pieces[id]` is what an id adds to the text, in UTF-8; ids without text have b"".

    `reserved` are the tokens that no text is encoded to, by their strings; `hidden` are the ids that decoding skips.
    """

    processor: sentencepiece.SentencePieceProcessor
    names: tuple[str, ...]
    """The pieces that text can give, as the model spells them; byte pieces left out."""
    pieces: tuple[bytes, ...]
    reserved: Mapping[str, int]
    hidden: frozenset[int]


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read tokenizer.model and, of those that exist, added_tokens.json, special_tokens_map.json, tokenizer_config.json.

    Reserved are control pieces, the unknown piece, added tokens beyond the model's pieces, pieces that one of the files
    names special, and user-defined pieces of the form `<…>`; the last two kinds are made control pieces, whatever type
    the model gives them. Other user-defined pieces (digits, runs of spaces) stay text. Reserved tokens are hidden, save
    those that added_tokens_decoder lists as not special: ERNIE's `<think>`, which a parser has to see.

    `rows` is the model's vocab_size, the bound of every id; raises TokenizerError.
    """
    path = member(folder, "tokenizer.model", missing=TokenizerError)
    where = str(path)
    data = read_bytes(path, MAX_MODEL_BYTES)
    settings = _optional(folder, "tokenizer_config.json")
    named = {*_names(_optional(folder, "special_tokens_map.json")), *_names(settings)}
    flags: dict[int, bool] = {}
    listing, decoder = str(folder / "added_tokens.json"), str(folder / "tokenizer_config.json")
    added: list[tuple[str, object, str]] = [
        (content, id, listing) for content, id in _optional(folder, "added_tokens.json").items()
    ]
    for content, id, special in _decoder(settings, decoder):
        flags[id] = special
        added.append((content, id, decoder))
        if special:
            named.add(content)

    processor = _load(data, where)
    try:
        ids = list(range(processor.GetPieceSize()))
        names: list[str] = processor.IdToPiece(ids)
        is_byte: list[bool] = processor.IsByte(ids)
        reserved = {name: id for id, name in enumerate(names) if processor.IsControl(id) or processor.IsUnknown(id)}
    except Exception as error:  # an id or a name that C++ gives and Python cannot take
        raise _unusable(data, where, error) from error
    if len(names) > rows:
        raise TokenizerError(
            "more tokens than the model has embeddings for",
            where=where,
            expected=f"at most vocab_size = {rows}",
            found=len(names),
            hint="The tokenizer and config.json belong to different models",
        )
    reachable = {
        id
        for id, name in enumerate(names)
        if not is_byte[id] and name not in reserved and (name in named or re.fullmatch(r"<[^<>\s]+>", name))
    }
    changed = _retype(data, reachable, names, named, where)
    if changed is not None:
        data, ids_changed = changed
        processor = _load(data, where)
        reserved |= {names[id]: id for id in ids_changed}

    pieces = [
        bytes([int(name[3:5], 16)]) if byte else name.replace(SPACE, " ").encode()
        for name, byte in zip(names, is_byte, strict=True)
    ]
    base = len(names)
    for content, identifier, file in added:
        id = _check_added(content, identifier, names, reserved, rows, file)
        if id >= base:
            pieces.extend(b"" for _ in range(id + 1 - len(pieces)))
            if pieces[id] not in (b"", content.encode()):
                raise _impossible(content, id, base, rows, file)
            pieces[id] = content.encode()
            reserved[content] = id
    hidden = frozenset(id for id in reserved.values() if flags.get(id, True))
    taken = set(reserved.values())
    plain = tuple(name for id, name in enumerate(names) if id not in taken and not is_byte[id])
    return Vocabulary(processor, plain, tuple(pieces), reserved, hidden)


def _optional(folder: Path, name: str) -> Mapping[str, Any]:
    if not os.path.lexists(folder / name):
        return {}
    return read_json(member(folder, name), limit=MAX_JSON_BYTES)


def _names(settings: Mapping[str, Any]) -> Iterator[str]:
    """The strings under `…_token` and `…_tokens`: each alone, as an object with `content`, or in a list or object."""
    for key, value in settings.items():
        if key.endswith(("_token", "_tokens")):
            values = list(value.values()) if isinstance(value, dict) and "content" not in value else value
            for item in values if isinstance(values, list) else [values]:
                content = item.get("content") if isinstance(item, dict) else item
                if isinstance(content, str) and content:
                    yield content


def _decoder(settings: Mapping[str, Any], where: str) -> Iterator[tuple[str, int, bool]]:
    """The entries of added_tokens_decoder: content, id, and whether it is special."""
    entries = settings.get("added_tokens_decoder") or {}
    for key, entry in entries.items() if isinstance(entries, dict) else [(repr(entries)[:20], None)]:
        content, special = (entry.get("content"), entry.get("special", False)) if isinstance(entry, dict) else ("", 0)
        if not re.fullmatch(r"\d{1,9}", key, re.ASCII) or not isinstance(content, str) or not isinstance(special, bool):
            raise TokenizerError(
                "an impossible entry of added_tokens_decoder",
                where=where,
                expected='an id and {"content": text, "special": true or false}',
                found=ascii((key, entry))[:80],
            )
        yield content, int(key), special


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


def _retype(
    data: bytes, candidates: Collection[int], names: list[str], named: set[str], where: str
) -> tuple[bytes, list[int]] | None:
    """Make control pieces of those `candidates` that are named special or user-defined; None when there are none."""
    if not candidates:
        return None
    parts: list[bytes] = []
    changed: list[int] = []
    kept = 0
    try:
        messages = (field for field in _fields(data, 0, len(data)) if field[0] == PIECES)
        for id, (_, start, body, end) in enumerate(messages):
            if id in candidates and (names[id] in named or _type(data, body, end) == USER_DEFINED):
                message = data[body:end] + bytes([TYPE, CONTROL])  # of a field that occurs twice the last value counts
                parts += [data[kept:start], bytes([PIECES]), _varint(len(message)), message]
                kept = end
                changed.append(id)
    except (IndexError, KeyError) as error:
        raise TokenizerError("not a usable SentencePiece model", where=where, hint="Fetch the file again") from error
    parts.append(data[kept:])
    return (b"".join(parts), changed) if changed else None


def _type(data: bytes, start: int, end: int) -> int | None:
    types = [_read_varint(data, body)[0] for tag, _, body, _ in _fields(data, start, end) if tag == TYPE]
    return types[-1] if types else None


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
        shift += 7
        if byte < 0x80:
            return value, position


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _check_added(content: str, id: object, names: list[str], reserved: Mapping[str, int], rows: int, where: str) -> int:
    if (
        not isinstance(id, int)
        or isinstance(id, bool)
        or not 0 <= id < rows
        or not content
        or reserved.get(content, id) != id
        or (id < len(names) and content not in (names[id], names[id].replace(SPACE, " ")))
    ):
        raise _impossible(content, id, len(names), rows, where)
    return id


def _impossible(content: str, id: object, base: int, rows: int, where: str) -> TokenizerError:
    return TokenizerError(
        "an impossible added token",
        where=where,
        expected=f"text with an id of its own from {base} to {rows - 1} (vocab_size - 1)",
        found=ascii((content[:40], id))[:80],
    )
