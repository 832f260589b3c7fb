"""Baidu's own files: rebuilt to their published digests, and met in ids and texts as far as these are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_rt.errors import PromptError
from ernie_rt.generation.constrained import answer_constraint
from ernie_rt.location import Located
from ernie_rt.modeling.config import ModelConfig, parse_config
from ernie_rt.sampling.constraint import Constraint
from ernie_rt.sampling.phases import Fixed
from ernie_rt.text.chat import ChatPrompt, ChatTemplate
from ernie_rt.text.spans import Span, encode_spans, spans_text
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from ernie_rt_onnx.tokenizer_json import tokenizer_json
from support import baidu
from support.templates import PLAIN, THINKING

Json = dict[str, Any]
VECTORS: Json = json.loads((baidu.DATA / "text_vectors.json").read_text())
RENDERS: list[Json] = [json.loads(line) for line in (baidu.DATA / "thinking_renders.jsonl").read_text().splitlines()]


def config() -> ModelConfig:
    return parse_config({"model_type": "ernie4_5", "vocab_size": baidu.ROWS, "eos_token_id": 2}, "config.json")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(baidu.write_text_tokenizer(tmp_path_factory.mktemp("text")), config())


@pytest.mark.parametrize("name", baidu.SHA256)
def test_the_files_of_the_text_models(name: str) -> None:
    assert hashlib.sha256(baidu.text_files()[name].encode()).hexdigest() == baidu.SHA256[name]


@pytest.mark.parametrize("text", VECTORS["encode"])
def test_ids_of_the_text_models(text_model: Tokenizer, text: str) -> None:
    ids = VECTORS["encode"][text]
    # Text of a template, since in contents "<s>" is three characters.
    assert encode_spans([Span(text, True)], text_model) == ids
    assert "<s>" in text or text_model.encode(text) == ids
    assert text_model.decode(ids, skip_special=False) == text
    stream = Detokenizer(text_model)
    assert "".join(map(stream.push, ids)) + stream.flush() == text_model.decode(ids) == text.replace("<s>", "")


def test_texts_of_the_text_models(text_model: Tokenizer) -> None:
    for ids, text in VECTORS["decode"]:
        assert text_model.decode(ids) == text
    assert text_model.encode("<s>>") != [1, *text_model.encode(">")]


def test_what_the_text_models_know(text_model: Tokenizer) -> None:
    assert text_model.vocab_size == VECTORS["len"] == 101_304
    assert not any(text_model.pieces[101_304:])
    assert text_model.notes == ()
    assert {token.content: token.id for token in text_model.added} == baidu.DIGITS
    assert text_model.special.isdisjoint(baidu.DIGITS.values())
    assert text_model.encode("a1987") == [*text_model.encode("a"), 4, 12, 11, 10]
    known = {"<unk>": 0, "<s>": 1, "</s>": 2} | baidu.TEXT_CONTROLS | baidu.MASKS | baidu.ADDED
    assert text_model.reserved == known
    assert text_model.special == {*known.values()}
    assert "<|IMAGE_START|>" not in known and known["<|IMAGE_SEP|>"] == 101_303


def test_conversations_of_the_text_models(text_model: Tokenizer) -> None:
    template = ChatTemplate(PLAIN, baidu.NAMED, "chat_template")
    for turns, ids in VECTORS["chat"]:
        messages = [{"role": role, "content": content} for role, content in turns]
        assert encode_spans(template.spans(messages, text_model, (), False), text_model) == ids


def unmarked(**settings: object) -> Json:
    """Settings in which the tokens of the Thinking template are named nowhere."""
    return {"tokenizer_class": "LlamaTokenizer", "legacy": True, **settings}


def listed(special: bool) -> Json:
    """Settings that list these tokens, and the digits."""
    tokens = {name: (id, special) for name, id in baidu.THINKING.items()}
    tokens |= {name: (id, False) for name, id in baidu.DIGITS.items()}
    entries = {str(i): {"content": name, "special": flag, "normalized": False} for name, (i, flag) in tokens.items()}
    return unmarked(added_tokens_decoder=entries)


def prefixed(folder: Path) -> None:
    """A tokenizer.json that puts a space in front, beside a tokenizer.model and settings that say otherwise."""
    written = tokenizer_json(Located(config(), folder))
    (folder / "tokenizer.json").write_text(json.dumps(written))
    (folder / "tokenizer_config.json").write_text(json.dumps(unmarked(add_prefix_space=False)))


def thinking_folders(folder: Path) -> Iterator[Path]:
    """The ways in which a folder can say that every run of text gets a space in front."""
    for name, dummy_prefix, settings in (
        ("class", True, unmarked()),
        ("settings", False, listed(False) | {"add_prefix_space": True}),
        ("json", True, unmarked()),
    ):
        made = folder / name
        made.mkdir()
        (made / "tokenizer.model").write_bytes(baidu.model(True, dummy_prefix))
        beyond = {name: id for name, id in baidu.THINKING.items() if id >= baidu.PIECES}
        (made / "added_tokens.json").write_text(json.dumps(beyond))
        (made / "tokenizer_config.json").write_text(json.dumps(settings))
        if name == "json":
            prefixed(made)
        yield made


@pytest.fixture(scope="module")
def thinking_models(tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    return [Tokenizer.load(folder, config()) for folder in thinking_folders(tmp_path_factory.mktemp("thinking"))]


@pytest.mark.parametrize("kind", ["ernie-thinking", "foreign"])
def test_thinking_is_rendered_as_published(thinking_models: list[Tokenizer], kind: str) -> None:
    template = ChatTemplate(THINKING, {}, "chat_template")
    assert template.kind == "ernie-thinking"
    template.__dict__["kind"] = kind
    assert len(RENDERS) == 24
    for render in RENDERS:
        request, reference = render["request"], render["reference"]
        messages = request["messages"]
        if messages[0]["role"] == "developer":  # Baidu's template leaves it out without a word
            with pytest.raises(PromptError, match=r"unknown role; .* found 'developer'"):
                template.spans(messages, thinking_models[0])
            messages = messages[1:]
        asks = request.get("add_generation_prompt", True)
        spans = template.spans(messages, thinking_models[0], request.get("tools"), asks)
        if request.get("continue_final_message"):
            while spans[-1].text != messages[-1]["content"]:
                spans.pop()
        assert spans_text(spans) == reference["text"], render["id"]
        for tokenizer in thinking_models:
            ids = encode_spans(spans, tokenizer)
            if "markup-in-user-text" in render["id"]:  # there a message spells tokens, which are text in it
                assert not {*baidu.THINKING.values()}.intersection(ids[20:-12])
                ids = encode_spans([Span(reference["text"], True)], tokenizer)
            assert ids == reference["input_ids"], render["id"]


def test_files_that_disagree_about_spaces(thinking_models: list[Tokenizer]) -> None:
    beginnings = [note.partition(" in front of text")[0] for tokenizer in thinking_models for note in tokenizer.notes]
    assert beginnings == ["a space is put", "a space is put", "tokenizer.json puts a space"]


@pytest.mark.parametrize("thinking", [False, True])
def test_the_tokenizer_json_that_is_written(thinking: bool, tmp_path: Path) -> None:
    """The `tokenizers` package gives the published ids with it, and finds special tokens wherever they stand."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = next(thinking_folders(tmp_path)) if thinking else baidu.write_text_tokenizer(tmp_path)
    reader = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(Located(config(), folder))))
    known = {render["reference"]["text"]: render["reference"]["input_ids"] for render in RENDERS}
    for text, ids in (known if thinking else VECTORS["encode"]).items():
        assert reader.encode(text, add_special_tokens=False).ids == ids
        assert thinking or reader.decode(ids, skip_special_tokens=False) == text
    assert reader.get_vocab_size() == (100_309 if thinking else 101_304)


def test_text_of_a_thinking_model(thinking_models: list[Tokenizer]) -> None:
    """A space in front of every run, and one less where decoded text begins."""
    for tokenizer in thinking_models:
        ids = tokenizer.encode("The weather: 18 is")
        assert [tokenizer.pieces[id] for id in ids] == [b" The", b" weather", b":", b" ", b"1", b"8", b"  ", b"is"]
        assert tokenizer.decode(ids) == "The weather: 18  is"
        stream = Detokenizer(tokenizer)
        for _ in range(2):
            assert "".join(map(stream.push, ids)) + stream.flush() == "The weather: 18  is"
        hello = tokenizer.encode("Hello")
        assert tokenizer.decode([tokenizer.encode_special("<|im_start|>"), *hello]).endswith("Hello")
        assert tokenizer.encode("") == []
        assert {name: tokenizer.reserved[name] for name in baidu.THINKING} == baidu.THINKING


def test_what_ends_reasoning_is_spelt_as_published(thinking_models: list[Tokenizer]) -> None:
    """Newlines behind a tag have a space in front, those behind other text have none."""
    prompt = ChatPrompt((1,), tags=frozenset({"<response>"}), thinking=True)
    for tokenizer in thinking_models:
        assert forced(answer_constraint(None, 0, prompt, tokenizer)) == [23, 100282, 93919, 23]
        text = answer_constraint(Fixed((700,)), 0, prompt, tokenizer)
        assert forced(text) == [23, 100282, 93919, 23, 100299, 93919, 23, 700, 23, 100300]


def forced(constraint: Constraint | None) -> list[int]:
    """The tokens that must come, up to where others may come or the text ends."""
    assert constraint is not None
    state, ids = constraint.start(), list[int]()
    while (mask := state.mask()) is not None and not state.complete:
        (id,) = np.flatnonzero(mask).tolist()
        ids.append(id)
        state.accept(id)
    return ids
