"""What the tokenizer files of a checkpoint say: the pieces, the added tokens, and which are special.

Several files say it, and after a tool has written some of them anew they may disagree. What counts is what
transformers makes of them: tokenizer.json, where there is one, then added_tokens_decoder in tokenizer_config.json, and
special_tokens_map.json and added_tokens.json only where there is no added_tokens_decoder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import MIB, member, read_json
from ernie_rt.text.added_tokens import AddedToken, Spacing, parse_added
from ernie_rt.text.pieces import CONTROL_FORM, SPACE, Encoder, Pieces
from ernie_rt.text.sentencepiece_model import read_sentencepiece
from ernie_rt.text.tokenizer_json import TokenizerJson, json_pieces, read_tokenizer_json

MAX_JSON_BYTES: Final = 4 * MIB
MODEL: Final = "tokenizer.model"
CONFIG: Final = "tokenizer_config.json"
ADDED: Final = "added_tokens.json"
MAP: Final = "special_tokens_map.json"
DECODER: Final = "added_tokens_decoder"
LLAMA: Final = ("LlamaTokenizer", "LlamaTokenizerFast")
TAGS: Final = ("think", "response", "tool_call", "tool_output", "tool_list", "system_setting", "global_setting")
CONTROLS: Final = frozenset(
    {"<|im_start|>", "<|im_end|>", *(f"<{tag}>" for tag in TAGS), *(f"</{tag}>" for tag in TAGS)}
)
"""The tokens of ERNIE's Thinking template: no text gives them, even where a file calls them not special."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a checkpoint. `pieces[id]` is what an id adds to the text, in UTF-8; ids without text have b""."""

    encode: Encoder
    names: tuple[str, ...]
    """The pieces that text can give, as the file spells them; byte pieces left out."""
    pieces: tuple[bytes, ...]
    reserved: tuple[AddedToken, ...]
    """The tokens that no text is encoded to."""
    matched: tuple[AddedToken, ...]
    """The tokens, and pieces, that are found in text before anything is merged."""
    spacing: Spacing
    notes: tuple[str, ...]
    """Where the files disagree, and which one was believed."""


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read tokenizer.model or tokenizer.json, and what lies beside it.

    The pieces are those of tokenizer.model, unless a tokenizer.json beside it has others. Reserved are special tokens,
    `CONTROLS`, control pieces, and tokens of the form `<…>` of which no file says whether they are special. All other
    added tokens and user-defined pieces (digits, runs of spaces) are text.

    `rows` is the model's vocab_size, the bound of every id; raises TokenizerError.
    """
    notes: list[str] = []
    settings = _optional(folder, CONFIG)
    listed, called = _listed(folder, settings, notes)
    json = folder / "tokenizer.json"
    described = read_tokenizer_json(member(folder, json.name)) if os.path.lexists(json) else None
    said = listed if described is None else _joined(described, listed, notes)
    said = [replace(token, special=True) if token.content in called else token for token in said]
    named = {*CONTROLS, *called, *(token.content for token in said if token.special)}
    named |= {name.replace(" ", SPACE) for name in named}
    plain = {token.content for token in said if token.special is False} - named
    stored, where = _pieces(folder, described, named, plain, notes)
    size = max(stored.names, default=-1) + 1
    if size > rows:
        raise TokenizerError(
            "more tokens than the model has embeddings for",
            where=where,
            expected=f"at most vocab_size = {rows}",
            found=size,
            hint="The tokenizer and config.json belong to different models",
        )
    pieces = [b""] * size
    for id, name in stored.names.items():
        pieces[id] = bytes([int(name[3:5], 16)]) if id in stored.byte_ids else name.replace(SPACE, " ").encode()
    spacing = _spacing(settings, described, stored, notes)
    reserved = {id: AddedToken(stored.names[id], id, special=True) for id in sorted(stored.reserved)}
    user_defined = ((id, stored.names[id]) for id in sorted(stored.matched))
    matched = {id: AddedToken(name, id, special=False) for id, name in user_defined if SPACE not in name}
    names = dict(stored.names)
    ids = {name: id for id, name in names.items()}
    for token in said:
        id, content = token.id, token.content
        name = names.setdefault(id, content)
        if not 0 <= id < rows or ids.setdefault(content, id) != id or content not in (name, name.replace(SPACE, " ")):
            raise _impossible(content, id, rows, where)
        if id in stored.byte_ids:  # it comes from its byte, whatever a file calls it
            continue
        pieces.extend(b"" for _ in range(id + 1 - len(pieces)))
        special = token.special
        if special is None:
            special = content in CONTROLS or re.fullmatch(CONTROL_FORM, content) is not None
            token = replace(token, special=special, normalized=not special)
        if special or content in CONTROLS or id in stored.reserved:
            reserved[id] = replace(token, content=name)
            pieces[id] = name.replace(SPACE, " ").encode()
        else:
            if token.single_word and id in stored.matched:
                raise TokenizerError(
                    "a piece that is always matched, and an added token that is matched as a word alone",
                    where=where,
                    found=ascii(content[:40]),
                    hint="Take single_word from its entry in added_tokens",
                )
            matched[id] = token
            # So the package decodes a token that it looks for in normalized text.
            shown = spacing.normalize(content) if token.normalized else content
            pieces[id] = shown.replace(SPACE, " ").encode()
    taken = {*reserved, *stored.byte_ids}
    return Vocabulary(
        stored.encode,
        tuple(name for id, name in stored.names.items() if id not in taken),
        tuple(pieces),
        tuple(reserved.values()),
        tuple(matched.values()),
        spacing,
        tuple(notes),
    )


def _listed(folder: Path, settings: Mapping[str, Any], notes: list[str]) -> tuple[list[AddedToken], set[str]]:
    """The tokens that lie beside the pieces, by id, and the names of special ones."""
    added = _optional(folder, ADDED)
    named = {*_names(settings)}
    mapped = {*_names(_optional(folder, MAP))}
    if settings.get(DECODER) is None:
        where = str(folder / ADDED)
        tokens = [_plain_token(content, id, where) for content, id in added.items()]
        return sorted(tokens, key=lambda token: token.id), named | mapped
    tokens = sorted(_decoder(settings[DECODER], str(folder / CONFIG)), key=lambda token: token.id)
    ids = {token.content: token.id for token in tokens}
    ignored = [content for content, id in added.items() if ids.get(content) != id]
    if ignored:
        notes.append(_note(ADDED, ignored, f"{DECODER} in {CONFIG} does not have, so they are no tokens"))
    # A map that nobody wrote anew calls special what has become text.
    text = {token.content for token in tokens if token.special is False}
    if mapped & text:
        notes.append(_note(MAP, sorted(mapped & text), f"{CONFIG} calls text, as which they count"))
    return tokens, named | (mapped - text)


def _joined(described: TokenizerJson, listed: list[AddedToken], notes: list[str]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json and those `listed` beside it.

    What is said of a token beside it counts, its id does not: tokens that the file does not have follow its last one.
    """
    tokens = {token.content: token for token in described.added}
    owners = {token.id: token.content for token in described.added}
    ids = {name: id for id, name in described.names.items()}
    following = max([len(ids), *(token.id + 1 for token in described.added)])
    moved: list[str] = []
    changed: list[str] = []
    for token in listed:
        known = tokens.get(token.content)
        id = ids.get(token.content) if known is None else known.id
        if id is None and token.special is None and token.id in owners:
            moved.append(token.content)
            continue
        if id is None:
            id, following = following, following + 1
        if id != token.id:
            moved.append(token.content)
        if known is None or token.special is not None:
            tokens[token.content] = replace(token, id=id)
        if known is not None and token.special is not None and known.flags != token.flags:
            changed.append(token.content)
    if moved:
        notes.append(_note("another file", moved, "tokenizer.json gives other ids, or none; it is believed"))
    if changed:
        notes.append(_note(CONFIG, changed, "tokenizer.json describes otherwise; tokenizer_config.json is believed"))
    return list(tokens.values())


def _pieces(
    folder: Path, described: TokenizerJson | None, named: set[str], plain: set[str], notes: list[str]
) -> tuple[Pieces, str]:
    """The pieces, and the file that they are read from."""
    if described is None or os.path.lexists(folder / MODEL):
        path = member(folder, MODEL, missing=TokenizerError)
        stored = read_sentencepiece(path, named, plain)
        added = set() if described is None else {token.id for token in described.added}
        if described is None or stored.names == {
            id: name for id, name in described.names.items() if id in stored.names or id not in added
        }:
            return stored, str(path)
        notes.append(f"{MODEL} has other pieces than tokenizer.json, which is believed")
    return json_pieces(described, named), described.where


def _spacing(settings: Mapping[str, Any], described: TokenizerJson | None, stored: Pieces, notes: list[str]) -> Spacing:
    """Where spaces are put in front of text: as tokenizer.json says or, without one, as the class named does.

    That is transformers' LlamaTokenizer: `legacy` puts one before every run of text, else one stands before the first.
    Without a word about it ERNIE's text gets none.
    """
    wish = settings.get("add_prefix_space")
    if described is not None:
        spaced = described.spacing.prepend or described.spacing.metaspace != "never"
        if isinstance(wish, bool) and wish != spaced:
            notes.append(
                f"tokenizer.json puts {'a' if spaced else 'no'} space in front of text, "
                f"add_prefix_space in {CONFIG} says otherwise; tokenizer.json is believed"
            )
        return described.spacing
    if not isinstance(wish, bool):
        wish = stored.dummy_prefix and settings.get("tokenizer_class") in LLAMA
    if not wish:
        return Spacing()
    legacy = settings.get("legacy") is not False
    return Spacing(spelled=legacy, prepend=legacy, metaspace="never" if legacy else "first", strip=1)


def _note(file: str, tokens: Sequence[str], what: str) -> str:
    shown = ", ".join(ascii(token[:40]) for token in tokens[:3])
    return f"{file} names {len(tokens)} tokens ({shown}{', …' if len(tokens) > 3 else ''}) that {what}"


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


def _plain_token(content: str, id: object, where: str) -> AddedToken:
    """An entry of added_tokens.json, which says nothing but the id."""
    if not content or not isinstance(id, int) or isinstance(id, bool):
        raise _impossible(content, id, None, where)
    return AddedToken(content, id)


def _impossible(content: str, id: object, rows: int | None, where: str) -> TokenizerError:
    return TokenizerError(
        "an impossible added token",
        where=where,
        expected=f"text with an id of its own, below vocab_size{'' if rows is None else f' = {rows}'}",
        found=ascii((content[:40], id))[:80],
    )
