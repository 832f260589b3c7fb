"""tokenizer.json alone: the ids of the SentencePiece model it was made from, nothing forged, other kinds refused."""

from __future__ import annotations

import copy
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.errors import ErnieRtError, JsonError, TokenizerError
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from support.tokenizers import (
    ADDED,
    ROWS,
    VISIBLE,
    ernie_config,
    ernie_model,
    ernie_tokenizer,
    mixed_text,
    write_ernie_tokenizer,
)

pytest.importorskip("tokenizers")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What transformers makes of ERNIE's files; its added tokens are pieces, or the package would number them anew."""
    transformers = pytest.importorskip("transformers")
    folder = write_ernie_tokenizer(tmp_path_factory.mktemp("converted"))
    transformers.LlamaTokenizer.from_pretrained(folder).save_pretrained(folder / "written")
    data: Json = json.loads((folder / "written" / "tokenizer.json").read_text())
    ids = ADDED | {name: 101400 + n for n, name in enumerate(VISIBLE)}
    data["model"]["vocab"] |= ids
    for entry in data["added_tokens"]:
        entry["id"] = ids.get(entry["content"], entry["id"])
    return data


@pytest.fixture(scope="module")
def tokenizer(converted: Json, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read(converted, tmp_path_factory.mktemp("json"))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ernie_tokenizer(tmp_path_factory.mktemp("model"))


def read(data: Json, folder: Path) -> Tokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return Tokenizer.load(folder, ernie_config())


def test_equal_to_sentencepiece(tokenizer: Tokenizer, sentencepiece: Tokenizer) -> None:
    for name in ("vocab_size", "pieces", "special", "reserved"):
        assert getattr(tokenizer, name) == getattr(sentencepiece, name), name
    rng = random.Random(12)
    for _ in range(800):
        text = mixed_text(rng, rng.randrange(1, 16))
        ids = tokenizer.encode(text)
        assert ids == sentencepiece.encode(text), text
        assert tokenizer.decode(ids) == text


def test_no_special_string_gives_a_special_id(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    reserved = set(tokenizer.reserved.values())
    for token, id in tokenizer.reserved.items():
        assert tokenizer.encode_special(token) == id
        for text in (token, mixed_text(rng, 3) + token + mixed_text(rng, 3), token + token):
            ids = tokenizer.encode(text)
            assert not reserved.intersection(ids)
            assert tokenizer.decode(ids) == text


def test_streams(tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    for _ in range(1000):
        ids = [rng.choice([rng.randrange(4100), rng.randrange(13, 269), rng.randrange(ROWS)]) for _ in range(12)]
        stream = Detokenizer(tokenizer)
        assert "".join(stream.push(id) for id in ids) + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("unit", ["a", "<", " ", "\u0301", "的", "<|LOC_1|>", " \n"])
def test_time_is_linear(tokenizer: Tokenizer, unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        best = 9.0
        for _ in range(5):
            began = time.process_time()
            tokenizer.encode(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(80_000) < 9 * seconds(20_000) + 0.01  # square time would be 16 times as long


def test_both_files(converted: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces are those of tokenizer.model, without the package; all else is what tokenizer.json says."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    write_ernie_tokenizer(tmp_path)
    front = {"type": "Prepend", "prepend": "\u2581"}
    data = copy.deepcopy(converted) | {"normalizer": {"type": "Sequence", "normalizers": [front, SPACES]}}
    data["pre_tokenizer"] = None
    next_id = max(entry["id"] for entry in data["added_tokens"]) + 1
    data["added_tokens"].append({"id": next_id, "content": "[CITE]", "special": False, "normalized": False})
    tokenizer = read(data, tmp_path)
    assert tokenizer.encode("the[CITE]of")[1] == next_id
    assert [tokenizer.pieces[id] for id in tokenizer.encode("the[CITE]of")] == [b" the", b"[CITE]", b" of"]
    assert [note.partition(",")[0] for note in tokenizer.notes] == ["tokenizer.json puts a space in front of text"]
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(TokenizerError, match="not a usable SentencePiece model"):
        read(data, tmp_path)


def test_both_files_where_no_token_was_added(converted: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.model").write_bytes(ernie_model())
    data = copy.deepcopy(converted) | {"added_tokens": []}
    for name in (*ADDED, *VISIBLE):
        del data["model"]["vocab"][name]
    both = read(data, tmp_path)
    assert both.notes == () and both.decode(both.encode("to the end")) == "to the end"


def test_a_tokenizer_model_with_other_pieces(converted: Json, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """It is what somebody forgot beside a tokenizer.json that was written anew."""
    write_ernie_tokenizer(tmp_path)
    model = tmp_path / "tokenizer.model"
    model.write_bytes(model.read_bytes().replace("\u2581the".encode(), "\u2581xyz".encode()))
    both = read(converted, tmp_path)
    assert both.encode("to the end") == tokenizer.encode("to the end")
    assert both.notes == ("tokenizer.model has other pieces than tokenizer.json, which is believed",)


def test_a_tokenizer_json_that_is_no_use_beside_a_model(tmp_path: Path) -> None:
    write_ernie_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=r"without a model.*tokenizer\.model in its place"):
        read({}, tmp_path)


def test_without_the_package(converted: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match=r"pip install 'ernie-rt\[tokenizers\]'"):
        read(converted, tmp_path)


SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def test_the_forms_that_converters_have_written(converted: Json, sentencepiece: Tokenizer, tmp_path: Path) -> None:
    """Spaces replaced by a normalizer, merges as strings."""
    data = copy.deepcopy(converted)
    data |= {"pre_tokenizer": None, "decoder": None, "post_processor": {"type": "Any"}, "truncation": {"max_length": 4}}
    data["normalizer"] = {"type": "Sequence", "normalizers": [SPACES]}
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    data["model"]["unk_token"] = "<unk>"
    older = read(data, tmp_path)
    rng = random.Random(4)
    for _ in range(200):
        text = mixed_text(rng, 8)
        assert older.encode(text) == sentencepiece.encode(text)


@pytest.mark.parametrize(
    ("said", "spaced"),
    [
        ({"prepend_scheme": "never"}, False),
        ({"prepend_scheme": "first", "add_prefix_space": False}, True),
        ({"add_prefix_space": False}, False),
        ({"add_prefix_space": True}, True),
        ({}, True),
    ],
)
def test_whether_a_space_is_put_in_front(said: Json, spaced: bool, converted: Json, tmp_path: Path) -> None:
    """Files from before `prepend_scheme` have a flag, which the package takes to be true where it is not there."""
    step = {"type": "Metaspace", "replacement": "\u2581", "split": False} | said
    tokenizer = read(converted | {"pre_tokenizer": step}, tmp_path)
    assert tokenizer.pieces[tokenizer.encode("the")[0]] == (b" the" if spaced else b"the")


def test_matched_pieces_and_named_ones(converted: Json, tmp_path: Path) -> None:
    """An added token that is a piece and not special is matched in text; what a file names special is not."""
    data = copy.deepcopy(converted)
    names = list(data["model"]["vocab"])
    long = max((name for name in names if name.isascii() and name.isalpha()), key=len)
    vocabulary = data["model"]["vocab"]
    vocabulary["q z"] = 4000
    for name, id in (("q z", 4000), (long, vocabulary[long]), ("<0x41>", vocabulary["<0x41>"])):
        data["added_tokens"].append({"id": id, "content": name, "special": False})
    tokenizer = read(data, tmp_path)
    assert 4000 in tokenizer.encode("xxq zyy")
    data["added_tokens"].append({"id": vocabulary["y"], "content": "y", "special": True})
    assert vocabulary["y"] not in read(data, tmp_path).encode("xxq zyy")
    assert vocabulary[long] in tokenizer.encode(f"x{long}x")
    assert vocabulary["<0x41>"] not in tokenizer.encode("<0x41>")
    assert tokenizer.decode([vocabulary["<0x41>"]]) == "A"
    special = {"mask_token": long, "cls_token": "z", "sep_token": "<0x0A>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = read(data, tmp_path)
    text = f"x{long} z\n{long}x"
    ids = tokenizer.encode(text)
    assert not {tokenizer.encode_special(long), tokenizer.encode_special("z")}.intersection(ids)
    assert vocabulary["<0x0A>"] in ids, "a byte piece is no special token, whatever a file says"
    assert tokenizer.decode(ids) == text


def test_pieces_matched_in_text_are_those_of_sentencepiece(converted: Json, tmp_path: Path) -> None:
    """The piece <mask:7>, renamed to what text may well contain, is user-defined there and an added token here."""
    folder = write_ernie_tokenizer(tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    model = folder / "tokenizer.model"
    model.write_bytes(model.read_bytes().replace(b"<mask:7>", b"3.14159\x3b"))
    theirs = Tokenizer.load(folder, ernie_config())
    model.unlink()
    data = json.loads(json.dumps(converted).replace("<mask:7>", "3.14159;"))
    next(entry for entry in data["added_tokens"] if entry["content"] == "3.14159;")["special"] = False
    ours = read(data, folder)
    assert ours.reserved == theirs.reserved
    rng = random.Random(6)
    for _ in range(300):
        text = rng.choice(["3.14159;", ";", "3."]).join(mixed_text(rng, 2) for _ in range(4))
        assert ours.encode(text) == theirs.encode(text), text
    assert 11 in ours.encode("x3.14159;")


def test_merges_that_would_forge(converted: Json, tmp_path: Path) -> None:
    """Merges to control pieces, to byte pieces and of bytes are there and lead nowhere."""
    data = copy.deepcopy(converted)
    vocabulary = data["model"]["vocab"]
    for name in ("<s", "<0x0", "A>", "<0x0A", "<0xF0><0x9F>"):
        vocabulary.setdefault(name, len(vocabulary))
    pairs = [["<", "s"], ["<s", ">"], ["<0x0", "A>"], ["<0xF0>", "<0x9F>"]]
    for left, right in pairs:
        for piece in (left, right):
            vocabulary.setdefault(piece, len(vocabulary))
    data["model"]["merges"] = pairs + data["model"]["merges"]
    tokenizer = read(data, tmp_path)
    for text in ("<s>", "a<s>", "<0x0A>", "🙂", "\n"):
        ids = tokenizer.encode(text)
        assert 1 not in ids and vocabulary["<0xF0><0x9F>"] not in ids
        assert tokenizer.decode(ids) == text
    assert vocabulary["<s"] in tokenizer.encode("<s>")


def change(path: str, value: object) -> Callable[[Json], None]:
    def apply(data: Json) -> None:
        *keys, last = path.split("/")
        place: Any = data
        for key in keys:
            place = place[key]
        place[last] = value

    return apply


def drop_byte(data: Json) -> None:
    data["model"]["vocab"]["byte"] = data["model"]["vocab"].pop("<0x0A>")


REGEX = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "\u2581"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (change("model", None), "without a model"),
        (change("model/type", "Unigram"), "another kind: type; expected BPE; found Unigram"),
        (change("model/byte_fallback", False), "byte_fallback"),
        (change("model/dropout", 0.5), "dropout"),
        (change("model/ignore_merges", True), "ignore_merges"),
        (change("model/continuing_subword_prefix", "##"), "continuing_subword_prefix"),
        (change("model/end_of_word_suffix", "</w>"), "end_of_word_suffix"),
        (change("normalizer", {"type": "NFKC"}), "a normalizer that ERNIE's tokenizer does not have"),
        (change("normalizer", REGEX), "a normalizer"),
        (change("normalizer", {"type": "Precompiled", "precompiled_charsmap": "A" * 99}), "a normalizer"),
        (change("normalizer", {"type": "Sequence", "normalizers": [{"type": "Sequence"}]}), "a normalizer"),
        (change("normalizer", "Replace"), "a normalizer"),
        (change("pre_tokenizer", {"type": "ByteLevel"}), "a pre_tokenizer"),
        (change("pre_tokenizer/split", True), "a pre_tokenizer"),
        (change("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "x"}}), "a pre_tokenizer"),
        (change("pre_tokenizer", None), "no such step"),
        (change("decoder", {"type": "ByteLevel"}), "a decoder"),
        (change("decoder", {"type": "Sequence", "decoders": [1]}), "a decoder"),
        (change("model/vocab", []), "an impossible vocabulary"),
        (change("model/vocab", {}), "a piece for each byte"),
        (change("model/vocab/x", -1), "an impossible vocabulary"),
        (change("model/vocab/x", True), "an impossible vocabulary"),
        (change("model/vocab/x", 5), "names that share one"),
        (change("model/vocab/x", 1 << 20), "more tokens than the model has embeddings for"),
        (change("model/vocab/", 4000), "an impossible vocabulary"),
        (drop_byte, "a piece for each byte"),
        (change("model/merges", None), "an impossible merge"),
        (change("model/merges", [["a"]]), "an impossible merge"),
        (change("model/merges", ["a b c"]), "an impossible merge"),
        (change("model/merges", [[1, 2]]), "an impossible merge"),
        (change("model/merges", [["a", "nothing"]]), "a merge of what are no pieces"),
        (change("added_tokens", {"a": 1}), "an impossible entry of added_tokens"),
        (change("added_tokens", [{"id": "7", "content": "<a>"}]), "an impossible entry of added_tokens"),
        (change("added_tokens", [{"id": 101500, "content": "<a>", "special": 1}]), "an impossible entry"),
        (change("added_tokens", [{"id": 300, "content": "", "special": True}]), "an impossible entry"),
    ],
)
def test_what_is_refused(converted: Json, spoil: Callable[[Json], None], says: str, tmp_path: Path) -> None:
    data = copy.copy(converted)
    for key, value in converted.items():  # deep where a case may change it
        data[key] = dict(value) if isinstance(value, dict) else value
    data["model"]["vocab"] = dict(data["model"]["vocab"])
    spoil(data)
    with pytest.raises(TokenizerError, match=says) as caught:
        read(data, tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_piece_that_is_matched_as_a_word_alone(tmp_path: Path) -> None:
    folder = write_ernie_tokenizer(tmp_path)
    model = folder / "tokenizer.model"
    model.write_bytes(model.read_bytes().replace(b"<mask:7>", b"3.14159\x3b"))
    entry = {"content": "3.14159;", "single_word": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"11": entry}}))
    with pytest.raises(TokenizerError, match=r"a piece that is always matched.*Take single_word from its entry"):
        Tokenizer.load(folder, ernie_config())


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"model": ' + "[" * 5000, "version https://git-lfs.github.com/spec/v1"]
)
def test_a_file_that_is_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(JsonError):
        Tokenizer.load(tmp_path, ernie_config())


def test_a_vast_file(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ErnieRtError, match="too large"):
        Tokenizer.load(tmp_path, ernie_config())
