"""What the tokenizer files of a checkpoint say: the pieces, the added tokens, and where spaces are put."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import member
from ernie_rt.text.added_files import ADDED, DECODER, TOKENIZER_CONFIG, impossible, read_added, read_optional
from ernie_rt.text.added_tokens import AddedToken, Spacing
from ernie_rt.text.pieces import CONTROL_FORM, CONTROLS, SPACE, Encoder, Pieces
from ernie_rt.text.sentencepiece_model import read_sentencepiece
from ernie_rt.text.tokenizer_json import TokenizerJson, json_pieces, read_tokenizer_json

MODEL: Final = "tokenizer.model"
JSON: Final = "tokenizer.json"
LLAMA: Final = ("LlamaTokenizer", "LlamaTokenizerFast")


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


def has_tokenizer(folder: Path) -> bool:
    """Whether a file with pieces is there."""
    return any(os.path.lexists(folder / name) for name in (MODEL, JSON))


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Read tokenizer.model or tokenizer.json, and what lies beside it.

    The pieces are those of tokenizer.model, unless a tokenizer.json beside it has others. Reserved are special tokens,
    `CONTROLS`, control pieces, and tokens of the form `<…>` of which no file says whether they are special. All other
    added tokens and user-defined pieces (digits, runs of spaces) are text.

    `rows` is the model's vocab_size, the bound of every id; raises TokenizerError.
    """
    if not has_tokenizer(folder):
        raise TokenizerError(
            "there is no tokenizer",
            where=str(folder),
            expected=f"{MODEL} or {JSON}",
            hint="Fetch the files of the model's repository whose names have `token` in them",
        )
    notes: list[str] = []
    settings = read_optional(folder, TOKENIZER_CONFIG)
    described = read_tokenizer_json(member(folder, JSON)) if os.path.lexists(folder / JSON) else None
    said, named = read_added(folder, settings, described, notes)
    named |= CONTROLS | {name.replace(" ", SPACE) for name in named}
    plain = {token.content for token in said if token.special is False} - named
    stored, where = _pieces(folder, described, named, plain, notes)
    if max(stored.names, default=-1) >= rows:
        raise TokenizerError(
            "more tokens than the model has embeddings for",
            where=where,
            expected=f"at most vocab_size = {rows}",
            found=max(stored.names) + 1,
            hint="The tokenizer and config.json belong to different models",
        )
    spacing = _spacing(settings, described, stored, notes)
    source = JSON if described else TOKENIZER_CONFIG if DECODER in settings else ADDED
    _check(said, stored, rows, str(folder / source))
    tokens = {token.id: token for token in (*_of_pieces(stored), *_settle(said)) if token.id not in stored.byte_ids}
    reserved: list[AddedToken] = []
    matched: list[AddedToken] = []
    for id, token in tokens.items():
        if id in stored.reserved or token.special or token.content in CONTROLS:
            reserved.append(replace(token, content=stored.names.get(id, token.content)))
        else:
            matched.append(token)
    shown = {id: name.encode() for id, name in stored.names.items()}
    shown |= {token.id: token.content.encode() for token in reserved}
    # A token that is looked for in normalized text is decoded to that.
    shown |= {t.id: (spacing.normalize(t.content) if t.normalized else t.content).encode() for t in matched}
    texts = {id: name.replace(SPACE.encode(), b" ") for id, name in shown.items()}
    texts |= {id: bytes([int(stored.names[id][3:5], 16)]) for id in stored.byte_ids}
    pieces = [b""] * (max(texts, default=-1) + 1)
    for id, text in texts.items():
        pieces[id] = text
    taken = {*stored.byte_ids, *(token.id for token in reserved)}
    return Vocabulary(
        stored.encode,
        tuple(name for id, name in stored.names.items() if id not in taken),
        tuple(pieces),
        tuple(reserved),
        tuple(matched),
        spacing,
        tuple(notes),
    )


def _of_pieces(stored: Pieces) -> Iterator[AddedToken]:
    """The pieces that are tokens without being added: the reserved ones, and those that are matched in text.

    Pieces with spaces are left to the encoder, which matches them where a space may have been put in front.
    """
    for id in sorted(stored.reserved):
        yield AddedToken(stored.names[id], id, special=True)
    for id in sorted(stored.matched):
        if SPACE not in stored.names[id]:
            yield AddedToken(stored.names[id], id, special=False)


def _settle(said: Iterable[AddedToken]) -> Iterator[AddedToken]:
    """Added tokens, of each whether it is special: where no file says so, its form does."""
    for token in said:
        if token.special is not None:
            yield token
            continue
        special = token.content in CONTROLS or re.fullmatch(CONTROL_FORM, token.content) is not None
        yield replace(token, special=special, normalized=not special)


def _check(said: Iterable[AddedToken], stored: Pieces, rows: int, where: str) -> None:
    """TokenizerError for added tokens that contradict each other or the pieces."""
    names = dict(stored.names)
    ids = {name: id for id, name in names.items()}
    for token in said:
        content, name = token.content, names.setdefault(token.id, token.content)
        same = content in (name, name.replace(SPACE, " ")) and ids.setdefault(content, token.id) == token.id
        if not same or not 0 <= token.id < rows:
            raise impossible(content, token.id, f"text with an id of its own, below vocab_size = {rows}", where)
        if token.single_word and token.id in stored.matched:
            raise TokenizerError(
                "a piece that is always matched, and an added token that is matched as a word alone",
                where=where,
                found=ascii(content[:40]),
                hint="Take single_word from its entry in added_tokens",
            )


def _pieces(
    folder: Path, described: TokenizerJson | None, named: set[str], plain: set[str], notes: list[str]
) -> tuple[Pieces, str]:
    """The pieces, and the file that they are read from."""
    if described is None or os.path.lexists(folder / MODEL):
        path = member(folder, MODEL)
        stored = read_sentencepiece(path, named, plain)
        if described is None or _same(stored, described):
            return stored, str(path)
        notes.append(f"{MODEL} has other pieces than tokenizer.json, which is believed")
    return json_pieces(described, named), described.where


def _same(stored: Pieces, described: TokenizerJson) -> bool:
    """Whether a tokenizer.json has the pieces of a tokenizer.model, and lists those that are matched in text."""
    added = {token.id for token in described.added}
    pieces = {id: name for id, name in described.names.items() if id in stored.names or id not in added}
    return stored.names == pieces and stored.matched <= added


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
                f"add_prefix_space in {TOKENIZER_CONFIG} says otherwise; tokenizer.json is believed"
            )
        return described.spacing
    if not isinstance(wish, bool):
        wish = stored.dummy_prefix and settings.get("tokenizer_class") in LLAMA
    legacy = settings.get("legacy") is not False
    if not wish:
        return Spacing(spelled=legacy)
    notes.append(
        f"a space is put in front of text, as {TOKENIZER_CONFIG} asks; AutoTokenizer of transformers 5 puts none"
    )
    return Spacing(spelled=legacy, prepend=legacy, metaspace="never" if legacy else "first", strip=1)
