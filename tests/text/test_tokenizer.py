"""The tokenizer: exact text both ways, streaming equal to decoding at once, and files that are not what they claim."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie_rt.errors import ErnieRtError, PromptError, TokenizerError
from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.text.spans import Span, encode_spans
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from support.tokenizers import NORMAL, USER_DEFINED, serialized

LINES = [
    "the quick brown fox, 1987",
    "你好世界，今天天气很好。",
    "hello world and hello again",
    "  def f(x):  return x",
] * 20


def train(**options: object) -> bytes:
    model = io.BytesIO()
    settings = {"add_dummy_prefix": True, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        split_digits=True,
        minloglevel=2,
        **{**settings, **options},
    )
    return model.getvalue()


MODEL = train()


def config(vocab_size: int = 400) -> ModelConfig:
    return parse_config({"model_type": "ernie4_5", "vocab_size": vocab_size, "eos_token_id": [2, 5]}, "config.json")


def folder(path: Path, model: bytes = MODEL, added: dict[str, object] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "tokenizer.model").write_bytes(model)
    if added is not None:
        (path / "added_tokens.json").write_text(json.dumps(added))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    added = {"<|IMAGE_START|>": 370, "<|图|>": 362}
    return Tokenizer.load(folder(tmp_path_factory.mktemp("tokenizer"), added=added), config())


def test_no_space_is_put_in_front(tokenizer: Tokenizer) -> None:
    stock = sentencepiece.SentencePieceProcessor()
    stock.LoadFromSerializedProto(MODEL)
    assert stock.encode("hello") == tokenizer.encode(" hello") != tokenizer.encode("hello")
    for text in ("hello world", " hello", "你好", "1987", "  two  spaces \n\t end "):
        assert b"".join(tokenizer.pieces[id] for id in tokenizer.encode(text)).decode() == text


def test_the_ids_are_those_of_sentencepiece(tmp_path: Path) -> None:
    model = train(add_dummy_prefix=False)
    ours = Tokenizer.load(folder(tmp_path, model), config())
    plain = sentencepiece.SentencePieceProcessor()
    plain.LoadFromSerializedProto(model)
    for text in (*LINES[:4], "unseen: ✓ émoji 🙂\n", " leading", "trailing ", "</s><unk><s>"):
        assert ours.encode(text) == plain.encode(text)


def test_content_never_gives_a_special_id(tokenizer: Tokenizer) -> None:
    for text in ("</s>", "a<s>b", "<unk>", "<|IMAGE_START|>", "<0x0A>", "<|图|>"):
        ids = tokenizer.encode(text)
        assert not tokenizer.special.intersection(ids)
        assert tokenizer.decode(ids) == text


def test_byte_pieces(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("\n") == [3 + 0x0A]
    assert tokenizer.encode("🙂") == [3 + byte for byte in "🙂".encode()]
    assert tokenizer.encode("") == []
    assert tokenizer.decode(tokenizer.encode("\0")) == "\0"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_decoding_undoes_encoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.integers(0, 399) | st.sampled_from([3 + byte for byte in "🙂é你".encode()]), max_size=40),
)
def test_streaming_is_decoding(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = Detokenizer(tokenizer)
    for _ in range(2):  # flush makes it ready for another sequence
        text = "".join(stream.push(id) for id in ids) + stream.flush()
        assert text == tokenizer.decode(ids)


def test_text_streams_as_soon_as_it_is_known(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(tokenizer)
    first, second, third, fourth = tokenizer.encode("🙂")
    assert [stream.push(id) for id in (first, second, third, fourth)] == ["", "", "", "🙂"]
    letter = tokenizer.encode("h")[0]
    assert stream.push(letter) == "h"
    assert (stream.push(first), stream.push(second), stream.push(letter)) == ("", "", "\ufffdh")
    assert (stream.push(first), stream.flush(), stream.flush()) == ("", "\ufffd", "")


def test_special_and_padding_ids(tokenizer: Tokenizer) -> None:
    hello = tokenizer.encode("hello")
    assert tokenizer.decode([1, *hello, 370, 2]) == "hello"
    assert tokenizer.decode([1, *hello, 370, 362, 2], skip_special=False) == "<s>hello<|IMAGE_START|><|图|></s>"
    assert (tokenizer.decode([0]), tokenizer.decode([0], skip_special=False)) == ("", "<unk>")
    assert tokenizer.vocab_size == 371
    assert tokenizer.decode([361, 369, 371, 399], skip_special=False) == ""
    for id in (-1, 400, 2**63):
        with pytest.raises(TokenizerError, match="expected 0 to 399"):
            tokenizer.decode([5, id, 6])


def test_text_that_is_not_unicode(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800b")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path, config())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a usable SentencePiece model"),
        (b"garbage" * 100, "not a usable SentencePiece model"),
        (MODEL[:-100], "not a usable SentencePiece model"),
        (MODEL[: len(MODEL) // 2], "not a usable SentencePiece model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
    ],
)
def test_a_file_that_is_no_model(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=says):
        Tokenizer.load(folder(tmp_path, data), config())


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    assert Tokenizer.load(folder(tmp_path), config(360)).vocab_size == 360
    with pytest.raises(TokenizerError, match="at most vocab_size = 359; found 360"):
        Tokenizer.load(folder(tmp_path), config(359))


@pytest.mark.parametrize(
    "added",
    [
        {"<a>": 400},
        {"<a>": -1},
        {"<s>": True},
        {"<a>": 370.0},
        {"<a>": "370"},
        {"<a>": None},
        {"<a>": 370, "<b>": 370},
        {"": 370},
        {"<a>": 2},
        {"<a>": 2**62},
    ],
)
def test_impossible_added_tokens(added: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="an impossible added token"):
        Tokenizer.load(folder(tmp_path, added=added), config())


def test_an_added_token_may_repeat_a_piece(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder(tmp_path, added={"</s>": 2, "<0x": 361}), config())
    assert tokenizer.decode([2, 361], skip_special=False) == "</s><0x"


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    inside = folder(tmp_path / "model")
    (tmp_path / "outside.json").write_text('{"<x>": 361}')
    (inside / "added_tokens.json").symlink_to(tmp_path / "outside.json")
    assert Tokenizer.load(inside, config()).decode([361], skip_special=False) == "<x>"
    (inside / "added_tokens.json").unlink()
    (inside / "added_tokens.json").symlink_to("/dev/zero")
    with pytest.raises(ErnieRtError, match="not a regular file"):
        Tokenizer.load(inside, config())


LLAMA = {"tokenizer_class": "LlamaTokenizer", "legacy": True}


@pytest.mark.parametrize(
    ("dummy_prefix", "settings", "put"),
    [
        (True, {}, "none"),
        (True, {"tokenizer_class": "Ernie4_5_Tokenizer"}, "none"),
        (True, LLAMA | {"add_prefix_space": False}, "none"),
        (False, LLAMA, "none"),
        (True, LLAMA, "every"),
        (True, {"tokenizer_class": "LlamaTokenizerFast"}, "every"),
        (False, {"add_prefix_space": True}, "every"),
        (True, LLAMA | {"legacy": False}, "first"),
        (False, {"add_prefix_space": True, "legacy": False}, "first"),
    ],
)
def test_where_spaces_are_put(dummy_prefix: bool, settings: dict[str, object], put: str, tmp_path: Path) -> None:
    names = ["a", "\u2581", "\u2581a", "\u2581\u2581", "b"]
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("1", 0.0, USER_DEFINED)]
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces = [*special, *bytes_, *((name, -float(rank), NORMAL) for rank, name in enumerate(names))]
    (tmp_path / "tokenizer.model").write_bytes(serialized(pieces, dummy_prefix=dummy_prefix))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(tmp_path, config())
    spans = [Span("a1a", False), Span("<s>", True), Span("a", False)]
    ids = encode_spans(spans, tokenizer)
    shown = {"none": "a|1|a||a", "every": " a|1| a|| a", "first": " a|1|a||a"}
    assert "|".join(tokenizer.decode([3, id]).removeprefix("1") for id in ids) == shown[put]
    assert tokenizer.decode(ids) == {"none": "a1aa", "every": "a1 a a", "first": "a1aa"}[put]
    # A run that begins with a space gets one of its own where every run does.
    assert len(tokenizer.encode(" a")) == (2 if put == "every" else 1)
    assert tokenizer.decode(tokenizer.encode(" a")) == (" a" if put in ("every", "none") else "a")
    stream = Detokenizer(tokenizer)
    for _ in range(2):
        assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)
