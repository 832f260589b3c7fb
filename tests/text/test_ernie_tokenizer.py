"""ERNIE's tokenizer files: equal to transformers, nothing forged by content, flags heeded, time linear."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from ernie_rt.errors import TokenizerError
from ernie_rt.text.sentencepiece_model import TYPE, USER_DEFINED
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from support.tokenizers import (
    ADDED,
    CONTROLS,
    MATCHED,
    ROWS,
    VISIBLE,
    WORDS,
    ernie_config,
    ernie_model,
    ernie_tokenizer,
    mixed_text,
    write_ernie_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ernie_tokenizer(tmp_path_factory.mktemp("ernie"))


@pytest.mark.parametrize("name", ["AutoTokenizer", "LlamaTokenizer"])
def test_equal_to_transformers(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "ernie4_5"}')
    theirs = getattr(transformers, name).from_pretrained(write_ernie_tokenizer(tmp_path))
    rng = random.Random(11)
    for _ in range(1000):
        text = mixed_text(rng, rng.randrange(1, 16))
        ids = tokenizer.encode(text)
        # Without its added tokens: transformers otherwise lets text forge those that are not special.
        assert ids == theirs._encode_without_added_tokens(text), text
        assert tokenizer.decode(ids) == theirs.decode(ids) == text


def test_no_special_string_gives_a_special_id(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    reserved = set(tokenizer.reserved.values())
    assert {"<s>", "</s>", "<unk>", *CONTROLS, *MATCHED, *VISIBLE, *ADDED} == set(tokenizer.reserved)
    for token in tokenizer.reserved:
        for text in (token, mixed_text(rng, 3) + token + mixed_text(rng, 3), token + token):
            ids = tokenizer.encode(text)
            assert not reserved.intersection(ids)
            assert tokenizer.decode(ids) == text


def test_every_special_string_has_its_id(tokenizer: Tokenizer) -> None:
    assert [tokenizer.encode_special(token) for token in ("<unk>", "<s>", "</s>", CONTROLS[0])] == [0, 1, 2, 3]
    assert tokenizer.encode_special("<|IMAGE_START|>") == 101304
    assert tokenizer.encode_special("<|LOC_1000|>") == 101297
    for token, id in tokenizer.reserved.items():
        assert tokenizer.decode([tokenizer.encode_special(token)], skip_special=False) == token
        assert tokenizer.decode([id]) == (token if token in VISIBLE else "")
    for text in ("the", "", "<0x0A>", "<|nothing|>"):
        with pytest.raises(TokenizerError, match="no such special token"):
            tokenizer.encode_special(text)


def test_without_flags_all_added_tokens_are_special_but_the_tags_of_answers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_ernie_tokenizer(tmp_path, flags=False), ernie_config())
    tags = {tokenizer.encode_special(tag) for tag in VISIBLE}
    assert tokenizer.special == set(tokenizer.reserved.values()) - tags
    assert tokenizer.decode([*tags]) == "".join(VISIBLE)


def test_ids_to_mask_begin_at_vocab_size(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 101400 + len(VISIBLE)
    assert len(tokenizer.pieces) == ROWS
    assert not any(tokenizer.pieces[tokenizer.vocab_size :])


def test_a_normal_piece_that_is_named_special_is_out_of_reach_of_text(tmp_path: Path) -> None:
    folder = write_ernie_tokenizer(tmp_path)
    plain = ernie_tokenizer(tmp_path)
    (id,) = plain.encode(" the")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        kept = (folder / name).read_text()
        settings = json.loads(kept)
        settings["additional_special_tokens"].append({"content": "\u2581the"})
        (folder / name).write_text(json.dumps(settings))
        tokenizer = Tokenizer.load(folder, ernie_config())
        assert tokenizer.encode_special("\u2581the") == id
        assert id not in tokenizer.encode(" the")
        assert tokenizer.decode(tokenizer.encode("to the end")) == "to the end"
        (folder / name).write_text(kept)


def test_other_user_defined_pieces_stay_text(tmp_path: Path) -> None:
    model = ernie_model()
    folder = write_ernie_tokenizer(tmp_path)
    # The piece <mask:7>, renamed to what text may well contain.
    (folder / "tokenizer.model").write_bytes(model.replace(b"<mask:7>", b"3.14159\x3b"))
    (folder / "tokenizer_config.json").write_text("{}")
    tokenizer = Tokenizer.load(folder, ernie_config())
    assert "3.14159;" not in tokenizer.reserved
    (id,) = tokenizer.encode("3.14159;")
    assert tokenizer.decode([id]) == "3.14159;"


def test_a_user_defined_control_is_found_by_its_form(tmp_path: Path) -> None:
    """Named by no file, and its type in front of its name, where few would look for it."""
    folder = write_ernie_tokenizer(tmp_path)
    model = ernie_model()
    at = model.index(bytes([0x0A, 8]) + b"<mask:7>")
    end = at + model[at - 1]
    body = model[at:end]
    kind = bytes([TYPE, USER_DEFINED])
    assert body.endswith(kind)
    (folder / "tokenizer.model").write_bytes(model[:at] + kind + body.removesuffix(kind) + model[end:])
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    tokenizer = Tokenizer.load(folder, ernie_config())
    id = tokenizer.encode_special("<mask:7>")
    assert id in tokenizer.special
    assert id not in tokenizer.encode("<mask:7>")


@pytest.mark.parametrize(
    "entries",
    [
        {"x": {"content": "<a>"}},
        {"-1": {"content": "<a>"}},
        {"101500": {"content": 3}},
        {"101500": "<a>"},
        {"101500": {"content": "<a>", "special": "no"}},
        {"103424": {"content": "<a>"}},
        {"101500": {"content": "</s>"}},
        {"2": {"content": "<a>"}},
        [1],
    ],
)
def test_impossible_flags(entries: object, tmp_path: Path) -> None:
    folder = write_ernie_tokenizer(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    with pytest.raises(TokenizerError, match="an impossible"):
        Tokenizer.load(folder, ernie_config())


def test_the_stream_is_the_whole_in_any_split(tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    bytes_of_characters = [id for text in ("🙂", "é", "龘", "\n") for id in tokenizer.encode(text)]
    for _ in range(5000):
        ids = [
            rng.choice(bytes_of_characters) if rng.random() < 0.5 else rng.randrange(4100)
            for _ in range(rng.randrange(12))
        ]
        stream = Detokenizer(tokenizer)
        text, position = "", 0
        while position < len(ids):  # a text that several ids complete arrives at once
            step = rng.randrange(1, 5)
            text += "".join(stream.push(id) for id in ids[position : position + step])
            position += step
            whole = tokenizer.decode(ids[:position])
            assert whole.startswith(text)
        assert text + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize(
    "unit", ["a", "<", "<|", " ", "\u0301", "the ", "的", "\n", "1", "<|LOC_1|>", " \n", "ab 的\u0301<"]
)
def test_time_is_linear(tokenizer: Tokenizer, unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        best = 9.0
        for _ in range(5):
            began = time.process_time()
            ids = tokenizer.encode(text)
            assert len(tokenizer.decode(ids)) == size
            best = min(best, time.process_time() - began)
        return best

    assert seconds(200_000) < 6 * seconds(50_000) + 0.01


def test_chunks_are_only_cut_where_no_piece_lies_across(tmp_path: Path) -> None:
    """A vocabulary with pieces across words is encoded whole, and gives the same ids as SentencePiece."""
    folder = write_ernie_tokenizer(tmp_path)
    model = ernie_model()
    words = sorted((w for w in WORDS if f"\u2581{w}".encode() in model and len(w) > 3), key=len)
    piece = f"\u2581{words[-1]}".encode()
    across = "a\u2581".encode().ljust(len(piece), b"b")
    assert model.count(piece) >= 1
    (folder / "tokenizer.model").write_bytes(model.replace(piece, across, 1))
    assert ernie_tokenizer_at(folder)._chunk is None
    (folder / "tokenizer.model").write_bytes(model.replace(piece, b"a\n".ljust(len(piece), b"b"), 1))
    chunk = ernie_tokenizer_at(folder)._chunk
    assert chunk is not None
    assert chunk.findall("x  a\nb c ") == ["x", "  a\nb", " c", " "]


def ernie_tokenizer_at(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder, ernie_config())
