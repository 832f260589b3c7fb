"""Reading tokenizer.json, the form that SentencePiece models take for the `tokenizers` package.

The file is a stranger's. Nothing of it reaches the package but its vocabulary and its merges: what it says of
normalizing, splitting and decoding has to be what ERNIE's converted files say, and is then done here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ernie_rt.errors import TokenizerError
from ernie_rt.files import MIB, read_json
from ernie_rt.text.pieces import CONTROL_FORM, SPACE, AddedToken, Encoder, Pieces

MAX_BYTES: Final = 24 * MIB
"""A file with 100,000 pieces has some 9 MB."""
HINT: Final = "Put the checkpoint's tokenizer.model beside it"

MODEL: Final[Mapping[str, tuple[object, ...]]] = {
    "type": ("BPE",),
    "byte_fallback": (True,),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (None, False),
}
"""What the fields of the model may say."""

STEPS: Final[Mapping[str, tuple[Mapping[str, object], ...]]] = {
    "normalizer": (
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        {"type": "Prepend", "prepend": SPACE},
    ),
    "pre_tokenizer": ({"type": "Metaspace", "replacement": SPACE, "split": False},),
    "decoder": (
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "stop": 0},
        {"type": "Metaspace", "replacement": SPACE},
    ),
}
"""The steps that each section may have. Space in front of the text, and its removal, is let go: ERNIE's has none."""
PARTS: Final = ("normalizers", "pretokenizers", "decoders")


def read_tokenizer_json(path: Path, named: Collection[str]) -> Pieces:
    """Read tokenizer.json: byte-fallback BPE with spaces spelled as U+2581. TokenizerError for any other, by name.

    Reserved are pieces `named` special or listed so among the added tokens, and added ones of the form `<…>`; other
    pieces among the added ones are matched wherever their text occurs. Needs the `tokenizers` package.
    """
    where = str(path)
    data = read_json(path, limit=MAX_BYTES)
    model = _check_steps(data, where)
    names = _vocabulary(model.get("vocab"), where)
    ids = {name: id for id, name in names.items()}
    byte_ids = frozenset(ids[f"<0x{byte:02X}>"] for byte in range(256) if f"<0x{byte:02X}>" in ids)
    if len(byte_ids) < 256:
        raise _unusable("a vocabulary without a piece for each byte", where, "<0x00> to <0xFF>", len(byte_ids))
    reserved = {id for id, name in names.items() if name in named}
    reserved.update(id for name, id in ids.items() if name == model.get("unk_token"))
    matched: list[str] = []
    added = tuple(_added(data.get("added_tokens"), where))
    for token, whole in added:
        name = names.get(token.id, "")
        if token.content in (name, name.replace(SPACE, " ")):
            if token.special or re.fullmatch(CONTROL_FORM, token.content):
                reserved.add(token.id)
            elif whole:
                raise _unusable("an added token that is matched by more than its text", where, None, token.content)
            else:
                matched.append(name)
    reserved -= byte_ids
    merges = list(_merges(model.get("merges"), ids, where))
    # Whatever no text may give is kept from the encoder: a byte piece comes from its byte alone.
    apart = {names[id] for id in reserved | byte_ids}
    return Pieces(
        names,
        byte_ids,
        frozenset(reserved),
        _encoder(
            {name: id for name, id in ids.items() if id not in reserved},
            [merge for merge in merges if apart.isdisjoint((*merge, "".join(merge)))],
            [name for name in matched if ids[name] not in reserved],
            where,
        ),
        tuple(token for token, _ in added),
    )


def _encoder(vocabulary: dict[str, int], merges: list[tuple[str, str]], matched: list[str], where: str) -> Encoder:
    try:
        from tokenizers import AddedToken as Matched
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
    except ImportError as error:
        raise TokenizerError(
            "a tokenizer.json is read by the package `tokenizers`, which is not installed",
            where=where,
            hint=f"Run `pip install 'ernie-rt[tokenizers]'`. Or: {HINT[0].lower()}{HINT[1:]}",
        ) from error
    try:
        tokenizer = Tokenizer(BPE(vocabulary, merges, byte_fallback=True))
        tokenizer.add_tokens([Matched(name, normalized=False) for name in matched])
    except Exception as error:  # whatever the package makes of a stranger's vocabulary
        raise _unusable("not a usable tokenizer", where, None, f"{type(error).__name__}: {str(error)[:200]}") from error

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [tokenizer.encode(text.replace(" ", SPACE), add_special_tokens=False).ids for text in texts]

    return encode


def _check_steps(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The `model` section of a file whose text goes through the known steps alone."""
    model = data.get("model")
    if not isinstance(model, dict):
        raise _unusable("a tokenizer.json without a model", where, "an object", model)
    for key, allowed in MODEL.items():
        if model.get(key) not in allowed:
            raise _unusable(f"a tokenizer model of another kind: {key}", where, allowed[0], model.get(key))
    spaced = False
    for section, forms in STEPS.items():
        for step in _steps(data.get(section)):
            if not any(isinstance(step, dict) and _fits(step, form) for form in forms):
                known = ", ".join(str(form["type"]) for form in forms)
                raise _unusable(f"a {section} that ERNIE's tokenizer does not have", where, known, step)
            spaced |= section != "decoder" and step["type"] in ("Replace", "Metaspace")
    if not spaced:
        raise _unusable("a tokenizer of another kind", where, f"spaces that become {SPACE!a}", "no such step")
    return model


def _steps(section: Any) -> list[Any]:
    if section is None:
        return []
    if isinstance(section, dict) and section.get("type") == "Sequence":
        lists = [section[key] for key in PARTS if isinstance(section.get(key), list)]
        return [step for steps in lists for step in steps]
    return [section]


def _fits(step: Mapping[str, Any], form: Mapping[str, object]) -> bool:
    return all(key in step and step[key] == value for key, value in form.items())


def _vocabulary(given: Any, where: str) -> dict[int, str]:
    """The pieces by id."""
    if not isinstance(given, dict) or not all(_is_id(id) for id in given.values()) or "" in given:
        raise _unusable("an impossible vocabulary", where, "names with an id each", type(given).__name__)
    names = {id: name for name, id in given.items()}
    if len(names) < len(given):
        raise _unusable("an impossible vocabulary", where, "an id for each name", "names that share one")
    return names


def _merges(given: Any, ids: Mapping[str, int], where: str) -> Iterator[tuple[str, str]]:
    """Pairs of pieces whose joined names are a piece; older files have each as one string with a space."""
    for merge in given if isinstance(given, list) else [given]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise _unusable("an impossible merge", where, "a pair of pieces", merge)
        left, right = pair
        if left not in ids or right not in ids or left + right not in ids:
            raise _unusable("a merge of what are no pieces", where, None, merge)
        yield left, right


def _added(given: Any, where: str) -> Iterator[tuple[AddedToken, bool]]:
    """The entries of added_tokens, and whether one is matched by more than its text."""
    for entry in given if isinstance(given, list) else [] if given is None else [given]:
        content, id, special = (
            (entry.get("content"), entry.get("id"), entry.get("special", False))
            if isinstance(entry, dict)
            else (None, None, None)
        )
        if not isinstance(content, str) or not content or not _is_id(id) or not isinstance(special, bool):
            raise _unusable("an impossible entry of added_tokens", where, "content, id and special", entry)
        assert isinstance(id, int)
        yield AddedToken(content, id, special), any(entry.get(key) for key in ("single_word", "lstrip", "rstrip"))


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _unusable(what: str, where: str, expected: object, found: object) -> TokenizerError:
    shown = found if isinstance(found, str | int) else ascii(found)
    return TokenizerError(what, where=where, expected=expected, found=str(shown)[:120], hint=HINT)
