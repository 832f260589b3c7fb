"""Prompts that no cache has seen, of the lengths that were wished for."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt_serve.bench.prompts import Length, Scale, Shape, dataset_bodies, every_word, read_dataset, unique_bodies
from support.timed_server import words


def bodies(count: int, shape: Shape, seed: int = 1, shared: int = 0, prompt: str = "100") -> list[dict[str, Any]]:
    made = unique_bodies(
        shape, random.Random(seed), Scale(1.5, 7), Length.parse("", prompt), Length.parse("", "5-9"), shared
    )
    return [json.loads(body) for body in itertools.islice(made, count)]


def common(a: str, b: str) -> int:
    """Words with which both begin."""
    same = (one == other for one, other in zip(a.split(), b.split(), strict=False))
    return len(list(itertools.takewhile(bool, same)))


def test_prompts_are_unlike_each_other_from_the_beginning() -> None:
    made = [body["prompt"] for body in bodies(500, Shape("completions", "m", {}))]
    made.sort()
    assert max(itertools.starmap(common, itertools.pairwise(made))) <= 5  # words of 62, and of 500 prompts
    assert {words(text) for text in made} <= {99, 100, 101}
    assert [body["prompt"] for body in bodies(3, Shape("completions", "m", {}))] == [
        body["prompt"] for body in bodies(3, Shape("completions", "m", {}))
    ]


def test_a_shared_beginning_comes_on_top() -> None:
    made = [body["messages"][0]["content"] for body in bodies(50, Shape("chat", "m", {}), shared=60)]
    assert min(itertools.starmap(common, itertools.pairwise(made))) == 40 and {len(text.split()) for text in made} == {
        102
    }


def test_lengths_are_drawn_from_their_range() -> None:
    made = bodies(300, Shape("completions", "m", {}), prompt="50-80")
    assert {body["max_tokens"] for body in made} == {5, 6, 7, 8, 9}
    lengths = [words(body["prompt"]) for body in made]
    assert min(lengths) <= 52 and max(lengths) >= 78 and min(lengths) >= 49 and max(lengths) <= 81


@pytest.mark.parametrize("text", ["", "0", "-5", "8-4", "1.5", "many", "1-2-3", "9999999999"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--prompt-tokens is no length"):
        Length.parse("--prompt-tokens", text)


def test_every_word_is_another() -> None:
    made = every_word(random.Random(1))
    assert len(set(made)) == len(made) > 150 and made != every_word(random.Random(2))


def test_a_scale_fits_what_a_server_counts() -> None:
    scale = Scale.fitted((32, 55), (160, 247))
    assert (scale.per_word, scale.offset, scale.words(100)) == (1.5, 7, 62)
    assert Scale.fitted((32, 9), (160, 9)).words(50) >= 1  # a server that counts wrongly
    assert scale.words(1) == 1


def test_fields_of_bodies() -> None:
    shape = Shape("chat", "m", {"temperature": 0, "max_tokens": None, "max_completion_tokens": 4})
    shape.without("ignore_eos")
    assert json.loads(shape.body("hi", 7)) == {
        "model": "m", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
        "max_completion_tokens": 4, "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip


def test_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"prompt": "hi", "max_tokens": 3}\n\n{"messages": [{"role": "user", "content": "你好"}], "id": 7}\n'
    )
    made = dataset_bodies(Shape("chat", "m", {}), random.Random(1), read_dataset(path, chat=True), Length(9, 9))
    asked = [json.loads(body) for body in itertools.islice(made, 3)]
    assert [body["messages"][0]["content"] for body in asked] == ["hi", "你好", "hi"]
    assert [body["max_tokens"] for body in asked] == [3, 9, 3]


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "{}", '{"prompt": 5}', '{"prompt": "a", "messages": []}', '{"messages": []}', "[" * 10_000,
        '{"prompt": "\udcff"}',
    ],
)  # fmt: skip
def test_a_dataset_names_the_line_that_is_wrong(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "hi"}}\n{line}\n', errors="surrogateescape")
    with pytest.raises(FileFormatError, match="line 2: cannot be asked"):
        read_dataset(path, chat=False)


def test_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(FileFormatError, match="no prompt"):
        read_dataset(tmp_path / "a.jsonl", chat=True)
