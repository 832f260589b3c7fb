"""What a checkpoint's files say of added tokens, which of them are special, and which file counts where they disagree.

What counts is what transformers makes of them. Of tokenizer.json and added_tokens_decoder in tokenizer_config.json the
first gives the ids, as `tokenizers` counts them, the second the flags. added_tokens.json is read where there is no
added_tokens_decoder. A token is special that a setting such as `sep_token` names; one in a list of special tokens,
unless it is described as text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import MIB, member, read_json
from ernie_rt.text.added_tokens import AddedToken, parse_added
from ernie_rt.text.pieces import CONTROLS
from ernie_rt.text.tokenizer_json import TokenizerJson
from ernie_rt.untrusted_json import Unusable

MAX_JSON_BYTES: Final = 4 * MIB
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
ADDED: Final = "added_tokens.json"
SPECIAL_TOKENS_MAP: Final = "special_tokens_map.json"
DECODER: Final = "added_tokens_decoder"


def read_added(
    folder: Path, settings: Mapping[str, Any], described: TokenizerJson | None, notes: list[str]
) -> tuple[list[AddedToken], set[str]]:
    """The added tokens, and the names of all tokens that are special; raises TokenizerError.

    `settings` are those of tokenizer_config.json, `described` is what a tokenizer.json says. What somebody should know
    who wrote these files is added to `notes`.
    """
    added, mapped = read_optional(folder, ADDED), read_optional(folder, SPECIAL_TOKENS_MAP)
    decoder = settings.get(DECODER)
    if decoder is None:
        where = str(folder / ADDED)
        listed = [_bare(content, id, where) for content, id in added.items()]
    else:
        listed = list(_decoder(decoder, str(folder / TOKENIZER_CONFIG)))
        ids = {token.content: token.id for token in listed}
        ignored = [content for content, id in added.items() if ids.get(content) != id]
        if ignored:
            notes.append(f"{ADDED} is not read, since {TOKENIZER_CONFIG} has {DECODER}, which lacks {_some(ignored)}")
    listed.sort(key=lambda token: token.id)
    tokens = listed if described is None else _joined(described, listed, notes)
    settled = {*_names(settings, "_token"), *(_names(mapped, "_token") if decoder is None else ())}
    text = {token.content for token in tokens if token.special is False} - settled - CONTROLS
    mapped_names = {*_names(mapped, "_token", "_tokens")}
    # transformers writes everything that it has added under extra_special_tokens, text too.
    doubted = text & (mapped_names | {*_names(settings, "additional_special_tokens")})
    if doubted:
        notes.append(f"a list of special tokens has {_some(sorted(doubted))}, described as text, as which it counts")
    named = settled | (mapped_names | {*_names(settings, "_tokens")}) - text
    tokens = [replace(token, special=True) if token.content in named else token for token in tokens]
    return tokens, named | {token.content for token in tokens if token.special}


def read_optional(folder: Path, name: str) -> Mapping[str, Any]:
    """The JSON object in a file of the folder; an empty one where there is no such file."""
    if not os.path.lexists(folder / name):
        return {}
    return read_json(member(folder, name), limit=MAX_JSON_BYTES)


def _joined(described: TokenizerJson, listed: list[AddedToken], notes: list[str]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json and those `listed` beside it.

    What is said of a token beside it counts, its id does not: tokens that the file does not have follow its last one.
    """
    if described.moved:
        notes.append(f"tokenizer.json numbers {_some(described.moved)} otherwise than `tokenizers`, which is believed")
    tokens = {token.content: token for token in described.added}
    owners = {token.id: token.content for token in described.added}
    ids = {name: id for id, name in described.names.items()}
    following = max([len(ids), *(token.id + 1 for token in described.added)])
    moved: list[str] = []
    changed: list[str] = []
    for token in listed:
        known = tokens.get(token.content)
        id = ids.get(token.content) if known is None else known.id
        if id != token.id:
            moved.append(token.content)
        if id is None and token.special is None and token.id in owners:  # of added_tokens.json, and its id is taken
            continue
        if id is None:
            id, following = following, following + 1
            moved = moved[:-1] if id == token.id else moved
        if known is None or token.special is not None:
            tokens[token.content] = replace(token, id=id)
        if known is not None and token.special is not None and known.flags != token.flags:
            changed.append(token.content)
    if moved:
        notes.append(f"tokenizer.json gives other ids, or none, to {_some(moved)}, and is believed")
    if changed:
        notes.append(f"tokenizer.json describes {_some(changed)} otherwise than {TOKENIZER_CONFIG}, which is believed")
    return list(tokens.values())


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(ascii(name[:40]) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _names(settings: Mapping[str, Any], *endings: str) -> Iterator[str]:
    """The strings under keys that end so: each alone, as an object with `content`, or in a list or object."""
    for key, value in settings.items():
        if key.endswith(endings):
            values = list(value.values()) if isinstance(value, dict) and "content" not in value else value
            for item in values if isinstance(values, list) else [values]:
                content = item.get("content") if isinstance(item, dict) else item
                if isinstance(content, Unusable):
                    content.refuse()
                if isinstance(content, str) and content:
                    yield content


def _decoder(entries: Any, where: str) -> Iterator[AddedToken]:
    """The entries of added_tokens_decoder."""
    for key, entry in entries.items() if isinstance(entries, dict) else [(repr(entries)[:20], None)]:
        token = parse_added(entry, int(key)) if re.fullmatch(r"\d{1,9}", key, re.ASCII) else None
        if token is None:
            raise TokenizerError(
                "an impossible entry of added_tokens_decoder",
                where=where,
                expected='an id and {"content": text, "special": true or false}',
                found=ascii((key, entry))[:80],
            )
        yield token


def _bare(content: str, id: object, where: str) -> AddedToken:
    """An entry of added_tokens.json, which says nothing but the id."""
    if not content or not isinstance(id, int) or isinstance(id, bool):
        raise impossible(content, id, "text with an id of its own", where)
    return AddedToken(content, id)


def impossible(content: str, id: object, expected: str, where: str) -> TokenizerError:
    """What to raise for an added token that cannot be."""
    found = ascii((content[:40], id))[:80]
    return TokenizerError("an impossible added token", where=where, expected=expected, found=found)
