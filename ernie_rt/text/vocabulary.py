"""What the tokenizer files of a checkpoint say: the pieces, the added tokens, and which are special."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import MIB, member, read_json
from ernie_rt.text.parsers import ANSWER_TAGS
from ernie_rt.text.pieces import SPACE, AddedToken, Encoder
from ernie_rt.text.sentencepiece_model import read_sentencepiece
from ernie_rt.text.tokenizer_json import read_tokenizer_json

MAX_JSON_BYTES: Final = 4 * MIB


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a checkpoint. `pieces[id]` is what an id adds to the text, in UTF-8; ids without text have b"".

    `reserved` are the tokens that no text is encoded to, by their strings; `hidden` are the ids that decoding skips.
    """

    encode: Encoder
    names: tuple[str, ...]
    """The pieces that text can give, as the file spells them; byte pieces left out."""
    pieces: tuple[bytes, ...]
    reserved: Mapping[str, int]
    hidden: frozenset[int]


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read tokenizer.model, or tokenizer.json where there is no such file, and what lies beside it.

    That is, of those that exist, added_tokens.json, special_tokens_map.json and tokenizer_config.json. Reserved are the
    pieces that the readers of the two formats say, what one of the files names special among them, and added tokens
    beyond the pieces. Other user-defined pieces (digits, runs of spaces) stay text. Reserved tokens are hidden, save
    those that a list with flags calls not special, and the tags of an answer (`<think>`), which a parser has to see.

    `rows` is the model's vocab_size, the bound of every id; raises TokenizerError.
    """
    settings = _optional(folder, "tokenizer_config.json")
    listing, decoder = str(folder / "added_tokens.json"), str(folder / "tokenizer_config.json")
    listed = tuple(_decoder(settings, decoder))
    named = {
        *_names(_optional(folder, "special_tokens_map.json")),
        *_names(settings),
        *(token.content for token in listed if token.special),
    }
    json_alone = not os.path.lexists(folder / "tokenizer.model") and os.path.lexists(folder / "tokenizer.json")
    path = member(folder, "tokenizer.json" if json_alone else "tokenizer.model", missing=TokenizerError)
    stored = (read_tokenizer_json if json_alone else read_sentencepiece)(path, named)
    size = max(stored.names, default=-1) + 1
    if size > rows:
        raise TokenizerError(
            "more tokens than the model has embeddings for",
            where=str(path),
            expected=f"at most vocab_size = {rows}",
            found=size,
            hint="The tokenizer and config.json belong to different models",
        )
    pieces = [b""] * size
    for id, name in stored.names.items():
        pieces[id] = bytes([int(name[3:5], 16)]) if id in stored.byte_ids else name.replace(SPACE, " ").encode()
    reserved = {stored.names[id]: id for id in stored.reserved}
    added: list[tuple[str, object, str]] = [
        *((token.content, token.id, str(path)) for token in stored.added),
        *((content, id, listing) for content, id in _optional(folder, "added_tokens.json").items()),
        *((token.content, token.id, decoder) for token in listed),
    ]
    for content, identifier, file in added:
        id = _check_added(content, identifier, stored.names, reserved, rows, file)
        if id not in stored.names:
            pieces.extend(b"" for _ in range(id + 1 - len(pieces)))
            if pieces[id] not in (b"", content.encode()):
                raise _impossible(content, id, rows, file)
            pieces[id] = content.encode()
            reserved[content] = id
    flags = {token.id: token.special for token in (*stored.added, *listed)}
    hidden = frozenset(id for name, id in reserved.items() if flags.get(id, True) and name not in ANSWER_TAGS)
    taken = {*reserved.values(), *stored.byte_ids}
    plain = tuple(name for id, name in stored.names.items() if id not in taken)
    return Vocabulary(stored.encode, plain, tuple(pieces), reserved, hidden)


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


def _decoder(settings: Mapping[str, Any], where: str) -> Iterator[AddedToken]:
    """The entries of added_tokens_decoder."""
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
        yield AddedToken(content, int(key), special)


def _check_added(
    content: str, id: object, names: Mapping[int, str], reserved: Mapping[str, int], rows: int, where: str
) -> int:
    if (
        not isinstance(id, int)
        or isinstance(id, bool)
        or not 0 <= id < rows
        or not content
        or reserved.get(content, id) != id
        or (id in names and content not in (names[id], names[id].replace(SPACE, " ")))
    ):
        raise _impossible(content, id, rows, where)
    return id


def _impossible(content: str, id: object, rows: int, where: str) -> TokenizerError:
    return TokenizerError(
        "an impossible added token",
        where=where,
        expected=f"text with an id of its own, below vocab_size = {rows}",
        found=ascii((content[:40], id))[:80],
    )
