"""The tokenizer.json that is written: the ids and the text of the SentencePiece model, for whoever reads it."""

from __future__ import annotations

import io
import json
import random
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from ernie_rt.errors import TokenizerError
from ernie_rt.location import Located
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt_onnx.tokenizer_json import tokenizer_json
from support.tokenizers import (
    CHINESE,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    VISIBLE,
    WORDS,
    Piece,
    ernie_config,
    mixed_text,
    serialized,
    write_ernie_tokenizer,
)

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def located(tmp_path_factory: pytest.TempPathFactory) -> Located:
    return Located(ernie_config(), write_ernie_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def reader(located: Located) -> Any:
    return reader_of(located)


def reader_of(located: Located) -> Any:
    """The `tokenizers` package with the file that is written."""
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(located)))


def ids_of(reader: Any, text: str) -> list[int]:
    ids: list[int] = reader.encode(text, add_special_tokens=False).ids
    return ids


def with_specials(tokenizer: Tokenizer, specials: re.Pattern[str], text: str) -> list[int]:
    """What a reader that finds special tokens in text has to give: their ids, and the rest encoded between them."""
    parts = enumerate(specials.split(text))
    found = ([tokenizer.reserved[part]] if number % 2 else tokenizer.encode(part) for number, part in parts)
    return [id for ids in found for id in ids]


def rare_text(rng: random.Random) -> str:
    """Characters from all of Unicode, long runs of white space, and words without spaces."""
    kind = rng.randrange(4)
    if kind == 0:
        ranges = [(1, 0x250), (0x250, 0xD800), (0xE000, 0x110000)]
        return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 30)))
    if kind == 1:
        return "".join(rng.choice(" \n\t\u2581") * rng.randrange(1, 90) + rng.choice(WORDS) for _ in range(5))
    return "".join(rng.choice(WORDS if kind == 2 else CHINESE) for _ in range(rng.randrange(1, 60)))


def test_equal_to_sentencepiece(located: Located, reader: Any) -> None:
    tokenizer = located.tokenizer
    names = sorted(tokenizer.reserved, key=len, reverse=True)
    specials = re.compile(f"({'|'.join(map(re.escape, names))})")
    rng = random.Random(12)
    plain = 0
    for number in range(2000):
        text = rare_text(rng) if number % 4 == 0 else mixed_text(rng, rng.randrange(1, 16))
        ids = ids_of(reader, text)
        assert ids == with_specials(tokenizer, specials, text), text
        assert reader.decode(ids) == tokenizer.decode(ids), text
        assert reader.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids, skip_special=False), text
        plain += ids == tokenizer.encode(text)
    assert plain > 900  # the others hold a special token


def test_special_tokens_are_found_in_text(located: Located, reader: Any) -> None:
    """As every reader of such files does; `Tokenizer.encode` takes them for characters."""
    for token, id in located.tokenizer.reserved.items():
        assert ids_of(reader, f"the{token}of") == [*ids_of(reader, "the"), id, *ids_of(reader, "of")]
        assert reader.token_to_id(token) == id
        assert (reader.decode([id]) == token) == (token in VISIBLE)
    assert reader.get_vocab_size() == len({*reader.get_vocab().values()})
    assert ids_of(reader, "<0x0A>") == located.tokenizer.encode("<0x0A>") != [located.tokenizer.encode("\n")]


def test_bytes_that_are_no_text(located: Located, reader: Any) -> None:
    first = located.tokenizer.encode("\0")[0]
    assert reader.decode([first + byte for byte in "é的🙂".encode()]) == "é的🙂"
    assert reader.decode([first + 0xE7, first + 0x9A]) == "\ufffd\ufffd"


def test_what_is_written_is_read_here_too(located: Located, tmp_path: Path) -> None:
    written = tokenizer_json(located)
    (tmp_path / "tokenizer.json").write_text(json.dumps(written))
    alone = Located(ernie_config(), tmp_path)
    rng = random.Random(3)
    for name in ("vocab_size", "pieces", "reserved", "special"):
        assert getattr(alone.tokenizer, name) == getattr(located.tokenizer, name), name
    for _ in range(200):
        text = mixed_text(rng, 8)
        assert alone.tokenizer.encode(text) == located.tokenizer.encode(text)
    assert tokenizer_json(alone) == written
    # What converters have written: merges as strings, and of what is special, which are let go; a space in front.
    spelled, front = written["normalizer"], {"type": "Prepend", "prepend": "\u2581"}
    older = json.loads(json.dumps(written)) | {"normalizer": {"type": "Sequence", "normalizers": [front, spelled]}}
    older["model"]["merges"] = [" ".join(pair) for pair in written["model"]["merges"]] + ["< s>", "1 e"]
    older["model"]["vocab"] |= {"<": 5000, "s>": 5001, "1e": 5002}
    (tmp_path / "tokenizer.json").write_text(json.dumps(older))
    again = tokenizer_json(Located(ernie_config(), tmp_path))
    assert again["model"]["merges"] == [*written["model"]["merges"], ("1", "e")]
    assert again["normalizer"] == older["normalizer"] != spelled


def test_pieces_of_every_shape(tmp_path: Path) -> None:
    """Pieces that repeat themselves and can be cut in many ways, scores that follow no order of making."""
    rng = random.Random(8)
    for number in range(14):
        names = grown(rng, rng.choice(["a", "ab", "abc", "a\u2581"]), rng.randrange(8, 24))
        if number % 2:
            names = [*names[:3], *rng.sample(names[3:], len(names) - 3)]
        located = model(tmp_path / str(number), ((name, -float(rank), NORMAL) for rank, name in enumerate(names)))
        reader = reader_of(located)
        for _ in range(60):
            text = "".join(rng.choice(names) for _ in range(rng.randrange(1, 12))).replace("\u2581", " ")
            assert ids_of(reader, text) == located.tokenizer.encode(text), (names, text)


def test_user_defined_pieces(tmp_path: Path) -> None:
    """Digits and runs of spaces that are matched first, and never merged."""
    merged = ["\u2581", "a", "1", "2", "aa", "a1", "\u2581a", "\u2581\u2581", "12a"]
    pieces = [(name, -float(rank), NORMAL) for rank, name in enumerate(merged)]
    pieces = [(name, score, USER_DEFINED if name == "2" else kind) for name, score, kind in pieces]
    located = model(tmp_path, [*pieces, *((name, 0.0, USER_DEFINED) for name in ("aaa", "11", "\u2581\u2581\u2581"))])
    reader = reader_of(located)
    assert [entry["content"] for entry in tokenizer_json(located)["added_tokens"][3:]] == [
        "2",
        "aaa",
        "11",
        "\u2581" * 3,
    ]
    rng = random.Random(1)
    for _ in range(500):
        text = "".join(rng.choice("  aa112x") for _ in range(rng.randrange(1, 16)))
        ids = ids_of(reader, text)
        assert ids == located.tokenizer.encode(text), text
        assert reader.decode(ids) == text


FLAGGED = [
    {"content": "新词", "normalized": True},
    {"content": "[CITE]", "normalized": False, "lstrip": True},
    {"content": "a b", "normalized": True, "rstrip": True},
    {"content": "aa", "single_word": True},
    {"content": "▁x", "normalized": False},
]


@pytest.mark.parametrize(
    "settings",
    [
        {"add_prefix_space": False},
        {"add_prefix_space": True},
        {"add_prefix_space": True, "legacy": False},
    ],
)
def test_added_tokens_and_spaces_in_front(settings: dict[str, Any], tmp_path: Path) -> None:
    merged = ["\u2581", "a", "1", "2", "b", "x", "aa", "\u2581a", "ab", "\u2581\u2581"]
    pieces = [(name, -float(rank), USER_DEFINED if name == "2" else NORMAL) for rank, name in enumerate(merged)]
    located = model(tmp_path, pieces)
    entries = {str(300 + n): {"special": False} | entry for n, entry in enumerate(FLAGGED) if entry["content"] != "aa"}
    entries["265"] = {"special": False} | FLAGGED[3]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"added_tokens_decoder": entries}))
    reader = reader_of(located)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "tokenizer.json").write_text(json.dumps(tokenizer_json(located)))
    alone = Located(ernie_config(), tmp_path / "alone")
    rng = random.Random(4)
    for _ in range(400):
        text = "".join(
            rng.choice(["a", "b", " ", "   ", "1", "2", "x", "词", "\n", *(str(entry["content"]) for entry in FLAGGED)])
            for _ in range(rng.randrange(12))
        )
        ids = ids_of(reader, text)
        assert located.tokenizer.encode(text) == alone.tokenizer.encode(text) == ids, text
        assert located.tokenizer.decode(ids) == alone.tokenizer.decode(ids) == reader.decode(ids), text
    assert tokenizer_json(alone) == tokenizer_json(located)
    if settings["add_prefix_space"]:
        located = model(tmp_path, [*pieces, ("\u2581\u2581\u2581", 0.0, USER_DEFINED)])
        with pytest.raises(TokenizerError, match="spaces that are matched"):
            tokenizer_json(located)


@pytest.mark.parametrize(
    ("extra", "algorithm", "says"),
    [
        (("aa", -9.0, NORMAL), 1, "another algorithm"),
        (("aa", -9.0, UNUSED), 2, "1 unused pieces"),
        (("ax", -9.0, NORMAL), 2, "a piece of characters that are no pieces; found 'ax'"),
    ],
)
def test_what_no_merges_can_say(extra: Piece, algorithm: int, says: str, tmp_path: Path) -> None:
    located = model(tmp_path, [("a", -1.0, NORMAL), ("\u2581", -2.0, NORMAL), extra], algorithm)
    with pytest.raises(TokenizerError, match=says) as caught:
        tokenizer_json(located)
    assert str(tmp_path / "tokenizer.model") in str(caught.value)


def test_a_piece_that_a_file_names_special(tmp_path: Path) -> None:
    """It is no text, so that nothing has to be merged to it: its characters need not be pieces."""
    located = model(tmp_path, [(name, -1.0, NORMAL) for name in ("a", "\u2581", "s1")])
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "s1"}')
    reader = reader_of(located)
    assert ids_of(reader, "as1s") == with_specials(located.tokenizer, re.compile("(s1)"), "as1s")
    assert reader.decode([located.tokenizer.reserved["s1"]]) == ""


def test_a_model_that_changes_characters(tmp_path: Path) -> None:
    data = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["a few words of text"] * 9), model_writer=data, model_type="bpe", vocab_size=280,
        byte_fallback=True, normalization_rule_name="nfkc", minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(data.getvalue())
    with pytest.raises(TokenizerError, match=r"\d+ bytes of rules that change characters"):
        tokenizer_json(Located(ernie_config(), tmp_path))


@pytest.mark.long
def test_a_vocabulary_of_ernies_size(tmp_path: Path) -> None:
    rng = random.Random(2)
    names = grown(rng, "\u2581" + "".join(map(chr, range(0x4E00, 0x6000))), 100_000)
    located = model(tmp_path, ((name, -float(rank), NORMAL) for rank, name in enumerate(names)))
    assert located.tokenizer.vocab_size > 100_000
    began = time.perf_counter()
    written = tokenizer_json(located)
    assert time.perf_counter() - began < 10
    reader = tokenizers.Tokenizer.from_str(json.dumps(written))
    for _ in range(200):
        text = "".join(rng.choice(names) for _ in range(20)).replace("\u2581", " ")
        assert ids_of(reader, text) == located.tokenizer.encode(text)


def grown(rng: random.Random, characters: str, size: int) -> list[str]:
    """Pieces, each later one joined of two earlier ones."""
    names = dict.fromkeys(characters)
    made = list(names)
    while len(made) < size:
        name = made[int(len(made) * rng.random() ** 2)] + made[int(len(made) * rng.random() ** 2)]
        if name not in names:
            names[name] = None
            made.append(name)
    return made


def model(folder: Path, pieces: Iterable[Piece], algorithm: int = 2) -> Located:
    """A folder with a tokenizer.model of these pieces, after the special ones and the bytes."""
    kept = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256))]
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(serialized([*kept, *pieces], algorithm))
    return Located(ernie_config(), folder)
