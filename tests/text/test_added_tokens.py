"""Added tokens: found in text as the `tokenizers` package finds them, from whichever file counts, in linear time."""

from __future__ import annotations

import json
import pickle
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_rt.errors import TokenizerError
from ernie_rt.modeling.config import parse_config
from ernie_rt.text.added_tokens import AddedToken, Cutter, Spacing, strip_front
from ernie_rt.text.finding import TokenFinder
from ernie_rt.text.spans import Span, encode_spans
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from support.toy_tokenizers import FIRST, FLAGS, SPACE, Json, entry, stored_json, toy_model


def load(folder: Path, **files: Json) -> Tokenizer:
    """A tokenizer of these files, with a tokenizer.model unless there is a tokenizer.json."""
    for name, contents in files.items():
        (folder / f"{name}.json").write_text(json.dumps(contents))
    if "tokenizer" not in files:
        (folder / "tokenizer.model").write_bytes(toy_model())
    config = parse_config({"model_type": "ernie4_5", "vocab_size": FIRST + 9, "eos_token_id": 2}, "config.json")
    return Tokenizer.load(folder, config)


def shown(tokenizer: Tokenizer, text: str) -> str:
    return "|".join(tokenizer.decode([id], skip_special=False) for id in tokenizer.encode(text))


texts = st.text(alphabet="ab<>", max_size=12)


@given(tokens=st.lists(st.text(alphabet="ab<>", min_size=1, max_size=5), max_size=9), text=texts)
def test_the_leftmost_and_longest_is_found(tokens: list[str], text: str) -> None:
    expected, place = [], 0
    while place < len(text):
        length = max((len(token) for token in tokens if text.startswith(token, place)), default=0)
        if length:
            expected.append((place, place + length))
        place += length or 1
    finder = TokenFinder(tokens)
    assert list(finder.find(text)) == expected
    assert list(pickle.loads(pickle.dumps(finder)).find(text)) == expected


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([f"<|LOC_{n}|>" for n in range(1000)], "<|LOC_5<|LOC_12|>x " * 30_000),
        (["a" * n + "b" for n in range(1, 1000)], "a" * 500_000),
        (["a" * n for n in range(1, 1000)], "a" * 500_000),
        ([chr(0x4E00 + n) for n in range(1000)], "".join(chr(0x4E00 + n) for n in range(1000)) * 500),
    ],
)
def test_many_tokens_take_no_longer(tokens: list[str], text: str) -> None:
    cutter = Cutter((AddedToken(token, n) for n, token in enumerate(tokens)), Spacing())
    began = time.process_time()
    parts = list(cutter.cut(text))
    assert time.process_time() - began < 5  # half a second; tokens times text take minutes
    assert sum(isinstance(part, int) for part in parts) in (30_000, 0, 501, 500_000)


def test_text_with_many_tokens_is_encoded_in_time(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    text = "<s>x[a" * 50_000
    began = time.process_time()
    ids = encode_spans([Span(text, True)], tokenizer)
    assert len(ids) == 200_000 and time.process_time() - began < 9


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        ({}, "a[x]b", "a|[x]|b"),
        ({}, "see[x] [x]", "s|e|e|[x]| |[x]"),
        ({"lstrip": True}, "a \t[x] b", "a|[x]| |b"),
        ({"rstrip": True}, "a [x] \nb", "a| |[x]|b"),
        ({"rstrip": True}, "a [x] \x1cb", "a| |[x]|\x1c|b"),  # a separator that is no white space to Unicode
        ({"single_word": True}, "a[x] [x]b [x]", "a|[|x|]| |[|x|]|b| |[x]"),
        ({"single_word": True}, "\u0301[x] \u200d[x] Ⓐ[x]", "́|[|x|]| |\u200d|[|x|]| |Ⓐ|[|x|]"),
        ({"single_word": True}, "²[x].", "²|[x]|."),
        ({"normalized": True}, "a[x]b", "a|[x]|b"),
        ({"special": True}, "a[x]b", "a|[|x|]|b"),
    ],
)
@pytest.mark.parametrize("form", ["model", "json"])
def test_flags(flags: dict[str, bool], text: str, expected: str, form: str, tmp_path: Path) -> None:
    added = {FIRST: entry("[x]", **flags)}
    if form == "json":
        tokenizer = load(tmp_path, tokenizer=stored_json(added))
    else:
        decoder = {str(id): fields for id, fields in added.items()}
        tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    bytewise = expected.encode().replace(b"|", b"")
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.pieces[id] for id in ids) == bytewise
    assert ids.count(FIRST) == expected.split("|").count("[x]")
    stream = Detokenizer(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids) == bytewise.decode()


@pytest.mark.parametrize(("legacy", "expected"), [(True, "a| | |[x]"), (False, "a|[x]")])
def test_a_slow_tokenizer_that_is_not_legacy_leaves_spaces_as_they_are(
    legacy: bool, expected: str, tmp_path: Path
) -> None:
    """So a token that is `normalized` finds them, and `lstrip` takes them, as transformers 4.57 has it."""
    token = {"content": "[x]", "special": False, "normalized": True, "lstrip": True}
    tokenizer = load(tmp_path, tokenizer_config={"legacy": legacy, "added_tokens_decoder": {str(FIRST): token}})
    assert shown(tokenizer, "a  [x]") == expected


def test_special_tokens_of_a_template_have_flags_too(tmp_path: Path) -> None:
    flags = {"special": True, "lstrip": True, "rstrip": True}
    decoder = {str(FIRST): entry("<cut>", **flags), str(FIRST + 1): entry("<word>", special=True, single_word=True)}
    tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    spans = [Span("a \n", False), Span("<cut> ", True), Span(" b <cut>", False), Span("<word>|<word>", True)]
    ids = encode_spans(spans, tokenizer)
    a, cut, word = tokenizer.encode("a")[0], FIRST, FIRST + 1
    assert ids == [a, cut, *tokenizer.encode("b <cut>"), word, *tokenizer.encode("|"), word]
    assert word not in encode_spans([Span("a<word>b", True)], tokenizer)


def test_tokens_that_overlap_have_one_meaning(tmp_path: Path) -> None:
    """The leftmost and longest of those in the text as it came, before any in the normalized text."""
    added = [entry("xy"), entry("xyz"), entry("zb"), entry("yzb", normalized=True), entry("x b", normalized=True)]
    decoder = {str(FIRST + n): fields for n, fields in enumerate(added)}
    tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    assert shown(tokenizer, "xyzb") == "xyz|b"
    assert shown(tokenizer, "yzb") == "y|zb"
    assert shown(tokenizer, "bxyzxy x b") == "b|xyz|xy| |x b"
    assert shown(tokenizer, f"x{SPACE}b") == "x b"


def test_what_a_bare_list_says(tmp_path: Path) -> None:
    """added_tokens.json alone: text, but for tokens that look like controls."""
    added = {"[CITE]": FIRST, "<|图|>": FIRST + 1, "新词": FIRST + 2, "<think>": FIRST + 3}
    tokenizer = load(tmp_path, added_tokens=added)
    assert shown(tokenizer, "a[CITE]b新词") == "a|[CITE]|b|新词"
    assert tokenizer.reserved.keys() - {"<unk>", "<s>", "</s>"} == {"<|图|>", "<think>"}
    assert tokenizer.decode([FIRST, FIRST + 1, FIRST + 2, FIRST + 3]) == "[CITE]新词<think>"
    assert tokenizer.notes == ()


def test_tags_of_ernie_are_never_text(tmp_path: Path) -> None:
    names = ["<think>", "<cite>", "<|im_end|>", "<|begin_of_sentence|>"]
    decoder = {str(FIRST + n): entry(name) for n, name in enumerate(names)}
    tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": decoder})
    ids = tokenizer.encode("".join(names))
    assert FIRST + 1 in ids and not {FIRST, FIRST + 2, FIRST + 3}.intersection(ids)
    assert [tokenizer.encode_special(name) for name in names if name != "<cite>"] == [FIRST, FIRST + 2, FIRST + 3]
    assert tokenizer.decode([FIRST, FIRST + 1, FIRST + 2]) == "<think><cite><|im_end|>"


def test_a_list_may_call_tags_of_ernie_special(tmp_path: Path) -> None:
    """As an export has it, whose readers show these tags."""
    settings = {"additional_special_tokens": ["<think>"]}
    tokenizer = load(tmp_path, tokenizer=stored_json({FIRST: entry("<think>")}), tokenizer_config=settings)
    assert (tokenizer.notes, tokenizer.decode([FIRST]), tokenizer.reserved["<think>"]) == ((), "<think>", FIRST)


def test_a_tokenizer_model_that_matches_what_is_no_added_token(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(toy_model())
    tokenizer = load(tmp_path, tokenizer=stored_json({}))
    assert tokenizer.notes == ("tokenizer.model has other pieces than tokenizer.json, which is believed",)
    assert tokenizer.added == ()


TEXT, SPECIAL = entry("[x]"), entry("[x]", special=True)


@pytest.mark.parametrize(
    ("files", "special", "note"),
    [
        ({"tokenizer": TEXT}, False, ""),
        ({"tokenizer": TEXT, "decoder": SPECIAL}, True, "tokenizer.json describes '[x]' otherwise than"),
        ({"tokenizer": SPECIAL, "decoder": TEXT}, False, "tokenizer.json describes '[x]' otherwise than"),
        ({"tokenizer": TEXT, "named": {"sep_token": "[x]"}}, True, ""),
        ({"tokenizer": TEXT, "named": {"extra_special_tokens": ["[x]"]}}, False, ""),
        ({"tokenizer": TEXT, "named": {"additional_special_tokens": ["[x]"]}}, False, "a list of special tokens has"),
        ({"tokenizer": TEXT, "map": {"sep_token": {"content": "[x]"}}}, True, ""),
        ({"tokenizer": TEXT, "map": {"additional_special_tokens": ["[x]"]}}, False, "a list of special tokens has"),
        ({"decoder": TEXT, "map": {"sep_token": "[x]"}}, False, "a list of special tokens has"),
        ({"decoder": SPECIAL}, True, ""),
        ({"added": FIRST}, False, ""),
        ({"added": FIRST, "named": {"additional_special_tokens": ["[x]"]}}, True, ""),
        ({"added": FIRST, "map": {"additional_special_tokens": ["[x]"]}}, True, ""),
        ({"tokenizer": SPECIAL, "added": FIRST}, True, ""),
    ],
)
def test_which_file_says_what_is_special(files: Json, special: bool, note: str, tmp_path: Path) -> None:
    settings = dict(files.get("named", {}))
    if "decoder" in files:
        settings["added_tokens_decoder"] = {str(FIRST): files["decoder"]}
    given: dict[str, Json] = {"tokenizer_config": settings, "special_tokens_map": files.get("map", {})}
    if "tokenizer" in files:
        given["tokenizer"] = stored_json({FIRST: files["tokenizer"]})
    if "added" in files:
        given["added_tokens"] = {"[x]": files["added"]}
    tokenizer = load(tmp_path, **given)
    assert (FIRST in tokenizer.special, FIRST in tokenizer.encode("a[x]b")) == (special, not special)
    assert ("[x]" in tokenizer.reserved) == special
    assert [said.startswith(note) for said in tokenizer.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    ("decoder", "added", "ids", "note"),
    [
        ({FIRST: "[x]"}, {}, {"[x]": FIRST}, ""),
        ({FIRST + 1: "[y]"}, {}, {"[x]": FIRST, "[y]": FIRST + 1}, ""),
        ({FIRST + 5: "[x]"}, {}, {"[x]": FIRST}, "tokenizer.json gives other ids, or none, to '[x]'"),
        ({FIRST: "[y]"}, {}, {"[x]": FIRST, "[y]": FIRST + 1}, "tokenizer.json gives other ids, or none, to '[y]'"),
        ({FIRST + 7: "[y]"}, {}, {"[x]": FIRST, "[y]": FIRST + 1}, "tokenizer.json gives other ids"),
        (None, {"[y]": FIRST}, {"[x]": FIRST}, "tokenizer.json gives other ids, or none, to '[y]'"),
        (None, {"[y]": FIRST + 1}, {"[x]": FIRST, "[y]": FIRST + 1}, ""),
        ({}, {"[y]": FIRST + 1}, {"[x]": FIRST}, "added_tokens.json is not read, since tokenizer_config.json has"),
    ],
)
def test_which_file_says_the_id(
    decoder: dict[int, str] | None, added: Json, ids: dict[str, int], note: str, tmp_path: Path
) -> None:
    """Beside a tokenizer.json that knows [x]: what transformers 4.57 and 5 make of it."""
    settings = {} if decoder is None else {"added_tokens_decoder": {str(i): entry(name) for i, name in decoder.items()}}
    tokenizer = load(tmp_path, tokenizer=stored_json({FIRST: TEXT}), tokenizer_config=settings, added_tokens=added)
    assert {token.content: token.id for token in tokenizer.added} == ids
    assert [said.startswith(note) for said in tokenizer.notes] == ([True] if note else [])


@pytest.mark.parametrize("ids", [(FIRST + 1, FIRST), (FIRST + 5, FIRST + 6), (7, 7), (FIRST, 2**20)])
def test_ids_of_a_tokenizer_json_that_the_package_gives_otherwise(ids: tuple[int, int], tmp_path: Path) -> None:
    stored = stored_json({})
    stored["added_tokens"] += [{"id": id, **entry(name)} for id, name in zip(ids, ("[x]", "ab"), strict=True)]
    tokenizer = load(tmp_path, tokenizer=stored)
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(stored))
    piece = stored["model"]["vocab"]["ab"]
    assert {token.content: token.id for token in tokenizer.added} == {"[x]": FIRST, "ab": piece}
    assert tokenizer.encode("[x]ab") == theirs.encode("[x]ab", add_special_tokens=False).ids == [FIRST, piece]
    (note,) = tokenizer.notes
    assert re.fullmatch("tokenizer.json numbers .* otherwise than `tokenizers`, which is believed", note)


def test_tokens_without_an_embedding(tmp_path: Path) -> None:
    many = {str(FIRST + n): entry(f"[{n}]") for n in range(10)}
    with pytest.raises(TokenizerError, match=rf"below vocab_size = {FIRST + 9}; found \('\[9\]', {FIRST + 9}\)"):
        load(tmp_path, tokenizer=stored_json({}), tokenizer_config={"added_tokens_decoder": many})


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_that_is_none(flag: str, tmp_path: Path) -> None:
    wrong = entry("[x]") | {flag: "yes"}
    with pytest.raises(TokenizerError, match="an impossible entry of added_tokens_decoder"):
        load(tmp_path, tokenizer_config={"added_tokens_decoder": {str(FIRST): wrong}})
    with pytest.raises(TokenizerError, match="an impossible entry of added_tokens"):
        load(tmp_path, tokenizer=stored_json({FIRST: wrong}))


@given(parts=st.lists(st.text(alphabet=" a", max_size=3), max_size=6), spaces=st.integers(0, 3))
def test_spaces_are_taken_off_the_beginning(parts: list[str], spaces: int) -> None:
    whole, _ = strip_front("".join(parts), spaces)
    left, streamed = spaces, ""
    for part in parts:
        shown, left = strip_front(part, left)
        streamed += shown
    assert streamed == whole
    assert "".join(parts).endswith(whole) and len("".join(parts)) - len(whole) <= spaces


def test_one_line_says_what_a_tokenizer_is(tmp_path: Path) -> None:
    assert repr(load(tmp_path)) == f"<Tokenizer of {FIRST:,} ids, 3 of them reserved>"


def test_a_tokenizer_goes_to_other_processes(tmp_path: Path) -> None:
    rng = random.Random(1)
    decoder = {str(FIRST): entry("[x]", lstrip=True), str(FIRST + 1): entry("<end>", special=True)}
    for settings in ({}, {"tokenizer": stored_json({})}):
        tokenizer = load(tmp_path, tokenizer_config={"added_tokens_decoder": decoder}, **settings)
        copy = pickle.loads(pickle.dumps(tokenizer))
        for _ in range(50):
            text = "".join(rng.choice(["a", " ", "[x]", "新", "é", "<end>"]) for _ in range(9))
            assert copy.encode(text) == tokenizer.encode(text)
        assert copy.reserved == tokenizer.reserved
        assert copy.decode([FIRST, 265, FIRST + 1]) == tokenizer.decode([FIRST, 265, FIRST + 1])
