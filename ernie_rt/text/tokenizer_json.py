"""Reading tokenizer.json, the form that SentencePiece models take for the `tokenizers` package.

The file is a stranger's. Nothing of it reaches the package but its vocabulary and its merges: what it says of
normalizing, splitting and decoding has to be what ERNIE's converted files say, and is then done here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from ernie_rt.errors import TokenizerError
from ernie_rt.files import MIB, read_json
from ernie_rt.text.added_tokens import AddedToken, Spacing, parse_added
from ernie_rt.text.pieces import SPACE, Pieces

MAX_BYTES: Final = 24 * MIB
"""A file with 100,000 pieces has some 9 MB."""
MOST_SIGNS: Final = 1 << 21
"""Commas and brackets: one with 100,000 pieces has a million."""
HINT: Final = "Put the checkpoint's tokenizer.model in its place"

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
"""The steps that each section may have."""
PARTS: Final = ("normalizers", "pretokenizers", "decoders")
SCHEMES: Final = ("never", "first", "always")
"""When a Metaspace puts a space in front."""


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """What a tokenizer.json says, checked. `unknown` is the piece for what no other stands for.

    `moved` are the added tokens to which the file gives other ids than they have.
    """

    where: str
    names: Mapping[int, str]
    merges: tuple[tuple[str, str], ...]
    unknown: str | None
    added: tuple[AddedToken, ...]
    moved: tuple[str, ...]
    spacing: Spacing


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Read tokenizer.json: byte-fallback BPE with spaces spelled as U+2581. TokenizerError for any other, by name."""
    where = str(path)
    data = read_json(path, limit=MAX_BYTES, signs=MOST_SIGNS)
    model, spacing = _check_steps(data, where)
    names = _vocabulary(model.get("vocab"), where)
    ids = {name: id for id, name in names.items()}
    number = sum(f"<0x{byte:02X}>" in ids for byte in range(256))
    if number < 256:
        raise _unusable("a vocabulary without a piece for each byte", where, "<0x00> to <0xFF>", number)
    merges = tuple(_merges(model.get("merges"), ids, where))
    unknown = model.get("unk_token")
    said = tuple(_added(data.get("added_tokens"), where))
    added = tuple(_numbered(said, ids))
    moved = tuple(token.content for token, its in zip(said, added, strict=True) if token.id != its.id)
    return TokenizerJson(where, names, merges, unknown if isinstance(unknown, str) else None, added, moved, spacing)


def json_pieces(stored: TokenizerJson, named: Collection[str]) -> Pieces:
    """The pieces of a tokenizer.json, by the `tokenizers` package; TokenizerError where it is not installed.

    Reserved are the unknown piece and pieces `named` special.
    """
    ids = {name: id for id, name in stored.names.items()}
    byte_ids = frozenset(ids[f"<0x{byte:02X}>"] for byte in range(256))
    reserved = frozenset(id for name, id in ids.items() if name in named or name == stored.unknown) - byte_ids
    # Whatever no text may give is kept from the encoder: a byte piece comes from its byte alone.
    apart = {stored.names[id] for id in reserved | byte_ids}
    encode = JsonEncoder(
        {name: id for name, id in ids.items() if id not in reserved},
        [merge for merge in stored.merges if apart.isdisjoint((*merge, "".join(merge)))],
        stored.where,
    )
    return Pieces(stored.names, byte_ids, reserved, encode)


class JsonEncoder:
    """Encodes texts with a vocabulary and its merges."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]], where: str) -> None:
        try:
            from tokenizers import Tokenizer
            from tokenizers.models import BPE
        except ImportError as error:
            raise TokenizerError(
                "a tokenizer.json is read by the package `tokenizers`, which is not installed",
                where=where,
                hint="Run `pip install 'ernie-rt[tokenizers]'`. Or: put the checkpoint's tokenizer.model beside it",
            ) from error
        try:
            self._tokenizer = Tokenizer(BPE(vocabulary, merges, byte_fallback=True))
        except Exception as error:  # whatever the package makes of a stranger's vocabulary
            found = f"{type(error).__name__}: {str(error)[:200]}"
            raise _unusable("not a usable tokenizer", where, None, found) from error

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._tokenizer.encode(text.replace(" ", SPACE), add_special_tokens=False).ids for text in texts]


def _check_steps(data: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], Spacing]:
    """The `model` section of a file whose text goes through the known steps alone, and what they do with spaces."""
    model = data.get("model")
    if not isinstance(model, dict):
        raise _unusable("a tokenizer.json without a model", where, "an object", model)
    for key, allowed in MODEL.items():
        if model.get(key) not in allowed:
            raise _unusable(f"a tokenizer model of another kind: {key}", where, allowed[0], model.get(key))
    steps = {section: _steps(data.get(section)) for section in STEPS}
    for section, forms in STEPS.items():
        for step in steps[section]:
            if not any(isinstance(step, dict) and _fits(step, form) for form in forms):
                known = ", ".join(str(form["type"]) for form in forms)
                raise _unusable(f"a {section} that ERNIE's tokenizer does not have", where, known, step)
    normalizers = [step["type"] for step in steps["normalizer"]]
    metaspaces = [_scheme(step, where) for step in steps["pre_tokenizer"]]
    if "Replace" not in normalizers and not metaspaces:
        raise _unusable("a tokenizer of another kind", where, f"spaces that become {SPACE!a}", "no such step")
    if len(metaspaces) > 1 or normalizers.count("Prepend") > 1:
        raise _unusable("a tokenizer of another kind", where, "one step that puts a space in front", "several")
    spacing = Spacing(
        spelled="Replace" in normalizers,
        prepend="Prepend" in normalizers,
        metaspace=metaspaces[0] if metaspaces else "never",
        strip=_stripped(steps["decoder"], where),
    )
    return model, spacing


def _scheme(step: Mapping[str, Any], where: str) -> Literal["never", "first", "always"]:
    """When a Metaspace puts a space in front; older files say whether it does."""
    scheme = step.get("prepend_scheme", "never" if step.get("add_prefix_space") is False else "always")
    if scheme not in SCHEMES:
        raise _unusable("a pre_tokenizer that ERNIE's tokenizer does not have", where, ", ".join(SCHEMES), scheme)
    found: Literal["never", "first", "always"] = scheme
    return found


def _stripped(steps: Sequence[Mapping[str, Any]], where: str) -> int:
    """How many spaces decoded text loses in front; steps that would take them off every token are another kind's."""
    strip = 0
    seen: set[str] = set()
    for step in steps:
        kind = step["type"]
        start = step.get("start", 0) if kind == "Strip" else 0
        if not isinstance(start, int) or start < 0 or (start and "Fuse" not in seen):
            raise _unusable("a decoder that ERNIE's tokenizer does not have", where, "Strip after Fuse", step)
        if kind == "Metaspace" and "Replace" not in seen and _scheme(step, where) != "never":
            raise _unusable("a decoder that ERNIE's tokenizer does not have", where, "Replace before Metaspace", step)
        strip += start
        seen.add(kind)
    return strip


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


def _added(given: Any, where: str) -> Iterator[AddedToken]:
    """The entries of added_tokens."""
    for entry in given if isinstance(given, list) else [] if given is None else [given]:
        token = parse_added(entry, entry.get("id") if isinstance(entry, dict) else None)
        if token is None:
            raise _unusable("an impossible entry of added_tokens", where, "content, id and flags", entry)
        yield token


def _numbered(tokens: Iterable[AddedToken], ids: Mapping[str, int]) -> Iterator[AddedToken]:
    """Added tokens with the ids that `tokenizers` gives them: of their piece or, one after the other, the next."""
    known = dict(ids)
    following = len(ids)
    for token in tokens:
        id = known.setdefault(token.content, following)
        following = max(following, id + 1)
        yield replace(token, id=id)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _unusable(what: str, where: str, expected: object, found: object) -> TokenizerError:
    shown = found if isinstance(found, str | int) else ascii(found)
    return TokenizerError(what, where=where, expected=expected, found=str(shown)[:120], hint=HINT)
