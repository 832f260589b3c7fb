"""Sampling through the Python API: every method takes the same options and gives the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.errors import OptionError, TokenizerError
from ernie_rt.loading import load
from ernie_rt.location import Located, locate
from ernie_rt.session import Model
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small
from support.pages import free_pages

TEXT = "The old teacher"
SAMPLED: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "seed": 7, "repetition_penalty": 1.1}


@pytest.fixture(scope="module")
def model(untrained: Path) -> Iterator[Model]:
    with load(untrained, backend="eager", device="cpu", dtype="float32", max_sequences=3, threads=1) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def all_pages_come_back(model: Model) -> Iterator[None]:
    yield
    assert free_pages(model._engine) == model._executable.cache.pages


@pytest.mark.parametrize(
    "options",
    [SAMPLED, {"temperature": 1.0, "top_k": 30, "min_p": 0.01, "seed": 0}, {"presence_penalty": 1, "logprobs": 2}],
    ids=str,
)
def test_one_answer_by_all_ways(model: Model, options: dict[str, Any]) -> None:
    options = options | {"max_new_tokens": 14, "ignore_eos": True}
    ids = model.tokenizer.encode(TEXT)
    generation = model.generate(TEXT, **options)
    told = list(generation.ids)
    assert len(told) == 14
    assert told == model.generate_ids(ids, **options) == list(model.stream_ids(ids, **options))
    assert told == [piece.id for piece in model.generate(TEXT, stream=True, **options)]
    batch = model.generate_batch([[5], ids, ids, [9, 9, 9], ids], **options)
    assert batch[1:3] == [told, told] and batch[4] == told
    assert generation.text == model.tokenizer.decode(told)
    assert len(generation.logprobs) == (14 if "logprobs" in options else 0)


def test_the_same_seed_in_chunks() -> None:
    """`max_batch_tokens` cuts the prompt into steps."""
    ids, told = list(range(1, 24)), []
    for tokens in (64, 7, 1):
        located = Located(small(torch_dtype="float32"))
        with load(located, weights=Synthetic(3), backend="reference", max_batch_tokens=tokens) as loaded:
            told.append(loaded.generate_ids(ids, max_new_tokens=20, ignore_eos=True, **SAMPLED))
    assert told[0] == told[1] == told[2]


def test_seeds(model: Model) -> None:
    def answers(**options: Any) -> set[tuple[int, ...]]:
        return {tuple(model.generate_ids([5, 6], max_new_tokens=12, temperature=1.5, **options)) for _ in range(4)}

    assert len(answers(seed=3)) == 1 and len(answers()) == 4
    assert answers(seed=3) != answers(seed=4)


def test_stop_strings(model: Model) -> None:
    options = SAMPLED | {"max_new_tokens": 40, "ignore_eos": True}
    whole = model.generate(TEXT, **options)
    for first in range(3, len(whole.text) - 3, 29):
        stop = whole.text[first : first + 3]
        at = whole.text.find(stop)
        stopped = model.generate(TEXT, stop=["never comes", stop], **options)
        assert (stopped.text, stopped.finish, stopped.stopped) == (whole.text[:at], "stop", stop)
        assert stopped.ids == whole.ids[: len(stopped.ids)]
        assert stop in model.tokenizer.decode(stopped.ids)
        assert stop not in model.tokenizer.decode(stopped.ids[:-1])
        pieces = list(model.generate(TEXT, stream=True, stop=[stop], **options))
        shown = ""
        for piece in pieces:
            shown += piece.text
            assert whole.text[:at].startswith(shown) and piece.stopped == (stop if piece.finish else "")
        ids = model.tokenizer.encode(TEXT)
        assert model.generate_batch([ids], stop=[stop], **options) == [list(stopped.ids)]
        assert list(model.stream_ids(ids, stop=[stop], **options)) == list(stopped.ids)


def test_what_was_held_back_is_shown_at_the_end(model: Model) -> None:
    options = SAMPLED | {"max_new_tokens": 10, "ignore_eos": True}
    whole = model.generate(TEXT, **options)
    held = model.generate(TEXT, stop=[whole.text[-2:] + "and on"], **options)
    assert (held.text, held.finish, held.stopped) == (whole.text, "length", "")


def test_two_streams_with_stops_take_turns(model: Model) -> None:
    options = SAMPLED | {"max_new_tokens": 20, "ignore_eos": True}
    texts = (TEXT, "Question 7")
    alone = [[(p.id, p.text) for p in model.generate(text, stream=True, stop=["zzz"], **options)] for text in texts]
    first, second = (model.generate(text, stream=True, stop=["zzz"], **options) for text in texts)
    told: list[list[tuple[int | None, str]]] = [[], []]
    for _ in range(20):
        for which, stream in enumerate((first, second)):
            piece = next(stream)
            told[which].append((piece.id, piece.text))
    assert told == alone
    assert next(first, None) is None and next(second, None) is None


def test_stop_ids_beside_the_end_of_sequence(model: Model) -> None:
    told = model.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True)
    stop = told[4]
    ended = model.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True, stop_ids=[stop])
    assert ended == told[: told.index(stop) + 1]
    longer = model.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True, stop_ids=[stop], min_new_tokens=8)
    assert stop not in longer[:8]


def test_bad_words_and_allowed_ids(model: Model) -> None:
    options = SAMPLED | {"max_new_tokens": 12, "ignore_eos": True}
    told = model.generate_ids([5, 6], **options)
    pair, single = told[2:4], told[7]
    without = model.generate_ids([5, 6], bad_words=[pair, [single]], **options)
    first = min(list(pairwise(told)).index(tuple(pair)) + 1, told.index(single))
    assert without[:first] == told[:first] and without[first] != told[first]
    assert single not in without and tuple(pair) not in list(pairwise(without))
    only = model.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True, allowed_ids=[8, 9, 10], temperature=1)
    assert set(only) <= {8, 9, 10}


def test_ids_without_a_token_are_never_chosen(untrained: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    located = locate(untrained)
    assert located.known_ids == located.tokenizer.vocab_size
    told = model.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True)
    monkeypatch.setitem(located.__dict__, "known_ids", max(told))
    with load(located, backend="eager", device="cpu", dtype="float32", threads=1) as loaded:
        assert loaded.tokenizer is located.tokenizer  # read once
        for options in ({}, SAMPLED):
            new = loaded.generate_ids([5, 6], max_new_tokens=12, ignore_eos=True, **options)
            assert max(new) < max(told)


def test_a_model_without_a_tokenizer_has_no_stop_strings() -> None:
    with load(Located(small()), weights=Synthetic(3), backend="reference") as loaded:
        assert len(loaded.generate_ids([1], max_new_tokens=3, ignore_eos=True, **SAMPLED)) == 3
        with pytest.raises(TokenizerError):
            loaded.generate_ids([1], max_new_tokens=3, stop=["x"])
        with pytest.raises(OptionError, match=r"no such option: temprature; expected allowed_ids, .*, temperature, "):
            loaded.generate_ids([1], temprature=1)  # type: ignore[call-arg]
