"""The demo's tokenizer: ERNIE's files, small pieces, digits apart, and the same ids as transformers gives."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from demo.curriculum import LANGUAGES, draw
from demo.model import demo_config
from demo.surface import written
from demo.tasks import TASKS
from demo.tokenizer import ADDED, CONTROLS, MASKS, MAX_LETTERS, PIECES, write_tokenizer
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.spans import spans_text
from ernie_rt.text.tokenizer import Tokenizer
from support.tokenizers import mixed_text


@pytest.fixture(scope="module")
def tokenizer(tokenizer_files: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_files, demo_config())


def test_files(tokenizer_files: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert {path.name for path in tokenizer_files.iterdir()} == {
        "tokenizer.model",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in tokenizer_files.iterdir()) < 100_000
    write_tokenizer(tmp_path)
    assert (tokenizer_files / "tokenizer.model").read_bytes() == (tmp_path / "tokenizer.model").read_bytes()
    assert json.loads((tokenizer_files / "added_tokens.json").read_text()) == {
        token: PIECES + number for number, token in enumerate(ADDED)
    }
    assert tokenizer.vocab_size == PIECES + len(ADDED) <= demo_config().vocab_size
    assert {"<unk>", "<s>", "</s>", *CONTROLS, *MASKS, *ADDED} == tokenizer.reserved.keys()
    assert [tokenizer.reserved[name] for name in ("<unk>", "<s>", "</s>")] == [0, 1, 2]


def test_pieces(tokenizer: Tokenizer) -> None:
    reserved = set(tokenizer.reserved.values())
    pieces = [piece.decode("utf-8", "replace") for id, piece in enumerate(tokenizer.pieces) if id not in reserved]
    assert max(map(len, pieces)) == MAX_LETTERS
    assert all(len(piece.strip()) == 1 for piece in pieces if any(sign.isdigit() and sign.isascii() for sign in piece))
    assert pieces.count("\n") == 1, "a newline is a byte piece, as with ERNIE"
    letters = [id for letter in "abcdefghijklmnopqrstuvwxyz" for id in tokenizer.encode(letter)]
    assert len(letters) == 26


def test_curriculum_needs_no_bytes(tokenizer: Tokenizer) -> None:
    rng = random.Random(9)
    signs = tokens = 0
    for number in range(1000):
        task = rng.choice([task for task in TASKS if task != "beyond"])  # which is about words that training never has
        item = written(rng, draw(rng, task, LANGUAGES[number % 2], "held_out"))
        text = item.prompt + item.answer
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        names = [tokenizer.pieces[id] for id in ids]
        assert not any(len(name) == 1 and name[0] >= 0x80 for name in names), text
        signs, tokens = signs + len(text), tokens + len(ids)
    assert signs > 1.7 * tokens


def test_anything_comes_back(tokenizer: Tokenizer) -> None:
    for seed in range(20):
        text = mixed_text(random.Random(seed), 60)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_template_is_ernies(tokenizer_files: Path, tokenizer: Tokenizer) -> None:
    template = ChatTemplate.load(tokenizer_files)
    assert template is not None and template.kind == "ernie"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert (
        spans_text(template.spans([*messages, messages[0]], tokenizer))
        == "<|begin_of_sentence|>User: Hi\nAssistant: Hello.<|end_of_sentence|>User: Hi\nAssistant: "
    )
    assert template.stop_ids(tokenizer) == (tokenizer.reserved["<|end_of_sentence|>"],)


def test_transformers_gives_the_same_ids(tokenizer_files: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tokenizer_files, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "ernie4_5_moe"}))
    theirs = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(3)
    for number in range(200):
        text = draw(rng, rng.choice(list(TASKS)), LANGUAGES[number % 2], "train").prompt
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text), text
    (folder / "config.json").unlink()
    messages = [{"role": "user", "content": "What is 2 plus 3?"}]
    template = ChatTemplate.load(folder)
    assert template is not None
    said = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert said == spans_text(template.spans(messages, tokenizer))
