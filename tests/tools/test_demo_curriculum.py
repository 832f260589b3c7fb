"""The curriculum: its answers by other means, and that what is held out is nowhere in what is taught."""

from __future__ import annotations

import datetime
import itertools
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.batches import COLUMNS, LONG, LONG_EVERY, LONG_FROM, Encoder, draw_document, draw_talk, pack, training_batch
from demo.curriculum import LANGUAGES, Item, draw, held_out_items
from demo.model import demo_config
from demo.tasks import MANNERS, POOLS, TASKS, UNITS, UNKNOWN, number_words
from demo.words import DICTIONARY, MONTHS, NAMES, SPELLING


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def arithmetic(item: Item) -> None:
    *sums, result = item.answer.split(" = ")
    pairs = [numbers(each) for each in sums]
    assert sorted(numbers(item.prompt)) == sorted(pairs[0])
    for (a, b), said in zip(pairs, sums, strict=True):
        assert said in (f"{a} + {b}", f"{a} - {b}") and ("+" in said) == (item.form == "add")
        assert int(result) == (a + b if item.form == "add" else a - b)


def count(item: Item) -> None:
    listed = item.prompt.count(", " if item.language == "en" else "、") + 1
    assert numbers(item.answer) == [listed]


def sequence(item: Item) -> None:
    said = numbers(item.answer)
    assert [said[0], said[-1]] == numbers(item.prompt)
    assert {b - a for a, b in itertools.pairwise(said)} in ({1}, {-1})


def sort(item: Item) -> None:
    rising = not re.search(r"largest first|largest to|large to|descending|从大到小", item.prompt)
    assert numbers(item.answer) == sorted(numbers(item.prompt), reverse=not rising)


def compare(item: Item) -> None:
    larger = bool(re.search(r"larger|bigger|greater|大", item.prompt))
    assert numbers(item.answer) == sorted(numbers(item.prompt), reverse=larger)
    assert re.search("larger|大" if larger else "smaller|小", item.answer)


def reverse(item: Item) -> None:
    letters, backwards = item.answer.split(" → ")
    word = letters.replace(" ", "")
    assert word in item.prompt and "".join(reversed(word)) == backwards == item.spelled
    assert letters == " ".join(word) and word.isascii()


FACTORS = {"kilometers": 1000, "公里": 1000, "meters": 100, "米": 100, "centimeters": 10, "厘米": 10,
           "kilograms": 1000, "公斤": 1000, "tons": 1000, "吨": 1000, "liters": 1000, "升": 1000,
           "dollars": 100, "美元": 100, "centuries": 100, "世纪": 100}  # fmt: skip


def units(item: Item) -> None:
    found = re.fullmatch(r"(\d+) ?(\D+?) = (\d+) ?(\D+)", item.answer)
    assert found
    n, big, value, small = found.groups()
    assert int(value) == int(n) * FACTORS[big] and int(n) in numbers(item.prompt)
    assert big in item.prompt and small in item.prompt


def day(text: str, language: str) -> datetime.date:
    if language == "zh":
        return datetime.date(2023, *numbers(text))
    month = next(name for name in MONTHS if name in text)
    return datetime.date(2023, MONTHS.index(month) + 1, numbers(text)[0])


def dates(item: Item) -> None:
    if item.form == "date":
        said = datetime.date.fromisoformat(item.answer)
        if item.language == "zh":
            assert numbers(item.prompt) == [said.year, said.month, said.day]
        else:
            assert f"{MONTHS[said.month - 1]} {said.day}, {said.year}" in item.prompt
        return
    shift = datetime.timedelta(1 if item.form == "after" else -1)
    expected = day(item.prompt, item.language) + shift
    answer = day(item.answer, item.language)
    assert (answer.month, answer.day) == (expected.month, expected.day)


def spoken(text: str) -> int:
    """A reader of number words that shares nothing with their writer."""
    if not text.isascii():
        total = digit = 0
        for sign in text:
            place = {"百": 100, "十": 10}.get(sign)
            if place:
                total, digit = total + (digit or 1) * place, 0
            else:
                digit = "零一二三四五六七八九".index(sign)
        return total + digit
    ones = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]  # fmt: skip
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    total = 0
    for word in re.split(r"[ -]", text):
        if word == "hundred":
            total *= 100
        elif word in ones:
            total += ones.index(word)
        elif word != "and":
            total += 10 * (tens.index(word) + 2)
    return total


def spelled_numbers(item: Item) -> None:
    if item.form == "to_words":
        assert [spoken(item.answer)] == numbers(item.prompt)
    else:
        words = number_words(int(item.answer), item.language)
        assert spoken(words) == int(item.answer) and words in item.prompt


def translate(item: Item) -> None:
    chinese = dict(DICTIONARY)
    ours = chinese if item.form == "to_chinese" else {value: key for key, value in chinese.items()}
    if not item.keys:
        assert any(word in item.prompt and other == item.answer for word, other in ours.items())
        return
    words = item.keys[0].split(",")
    pair = (" ".join(words), "的".join(chinese[word] for word in words))
    source, target = pair if item.form == "to_chinese" else reversed(pair)
    assert source in item.prompt and item.answer == target


def passage(item: Item) -> None:
    subject, object = item.keys[0].split(",")
    sentences = re.split(r"(?<=[.。])\s*", item.prompt)
    assert any(subject in sentence and object in sentence for sentence in sentences)
    assert subject in item.answer and object in item.answer


def unknown(item: Item) -> None:
    if item.form != "passage":
        assert item.answer in ("I do not know.", "我不知道。")
        return
    assert item.answer in ("The text does not say.", "文中没有说。")
    subject = item.keys[0].split(",")[0]
    if item.language == "en":
        assert len(re.findall(rf"\b{subject}\b", item.prompt)) == 1
    else:
        assert re.search(rf"{subject}(?:在哪里|有什么)", item.prompt)
        assert not re.search(rf"把{subject}放|{subject}去了|{subject}有一个", item.prompt)


def beyond(item: Item) -> None:
    said = re.search(r"[\u4e00-\u9fff]", item.prompt) if item.language == "zh" else None
    assert item.answer == UNKNOWN["zh" if said else "en"]
    if item.form in ("add", "subtract"):
        a, b = (int(number) for number in item.keys[0].split(","))
        assert max(a, b) >= 100 or a < b
    if item.form == "units":
        big, small = (name for name in FACTORS if name in item.prompt), item.prompt
        assert all(not re.search(rf"\d ?{name}", small) or FACTORS[name] for name in big)


def as_json(item: Item) -> None:
    values = json.loads(item.answer)
    assert len(values) == 3
    assert all(str(value) in item.prompt for value in values.values())


def story(item: Item) -> None:
    assert item.answer[-1] in ".。" and not re.search(r"\b[Aa] [aeiou]|\{", item.answer)


def greeting(item: Item) -> None:
    assert item.answer == MANNERS[item.form][item.language]


CHECKS: dict[str, Callable[[Item], None]] = {
    "arithmetic": arithmetic,
    "count": count,
    "sequence": sequence,
    "sort": sort,
    "compare": compare,
    "reverse": reverse,
    "units": units,
    "dates": dates,
    "numbers": spelled_numbers,
    "translate": translate,
    "passage": passage,
    "unknown": unknown,
    "beyond": beyond,
    "json": as_json,
    "story": story,
    "greeting": greeting,
}


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_right(task: str) -> None:
    rng = random.Random(task)
    for number in range(600):
        item = draw(rng, task, LANGUAGES[number % 2], "train" if number % 4 < 2 else "held_out")
        try:
            CHECKS[task](item)
        except Exception as error:
            error.add_note(f"{item}")
            raise


@pytest.mark.parametrize(
    ("n", "english", "chinese"),
    [
        (0, "zero", "零"),
        (10, "ten", "十"),
        (15, "fifteen", "十五"),
        (20, "twenty", "二十"),
        (47, "forty-seven", "四十七"),
        (100, "one hundred", "一百"),
        (305, "three hundred and five", "三百零五"),
        (110, "one hundred and ten", "一百一十"),
        (999, "nine hundred and ninety-nine", "九百九十九"),
    ],
)
def test_number_words(n: int, english: str, chinese: str) -> None:
    assert (number_words(n, "en"), number_words(n, "zh")) == (english, chinese)


def test_words_are_shared_out() -> None:
    for (task, language, split), words in POOLS.items():
        other = POOLS[task, language, "held_out" if split == "train" else "train"]
        assert words and not set(words) & set(other)
    assert len(POOLS["reverse", "en", "held_out"]) > 100
    assert len({english for english, _ in DICTIONARY}) == len({chinese for _, chinese in DICTIONARY}) == len(DICTIONARY)
    assert len(SPELLING) == len(set(SPELLING)) and len(NAMES) == len(set(NAMES))
    assert {big for big, *_ in UNITS} <= FACTORS.keys()


def test_invented_words_are_no_held_out_words() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        item = draw(rng, "reverse", "en", "train")
        assert item.spelled[::-1] not in POOLS["reverse", "en", "held_out"]


@pytest.fixture(scope="module")
def encoder(tokenizer_files: Path) -> Encoder:
    return Encoder(tokenizer_files, demo_config())


def test_documents_of_training(encoder: Encoder) -> None:
    held_out = {item.answer.split(" = ")[0] for item in held_out_items("arithmetic", 1000)}
    stream = [draw_document(random.Random(seed), encoder, COLUMNS) for seed in range(500)]
    assert stream[:20] == [draw_document(random.Random(seed), encoder, COLUMNS) for seed in range(20)]
    for document in stream:
        text = encoder.tokenizer.decode(document.ids)
        assert not held_out.intersection(re.findall(r"\d+ [+-] \d+", text))
        assert len(document.ids) == len(document.targets) == len(document.learned) <= COLUMNS
        if len(document.ids) < COLUMNS:
            assert document.learned[-1] and document.targets[-1] == encoder.end == 2, text
    sizes = sorted(len(document.ids) for document in stream)
    assert sizes[len(sizes) // 2] < 60 and sizes[-25] < COLUMNS

    batch = pack(stream, 16, 192)
    for row in range(16):
        assert batch.documents[row].tolist() == sorted(batch.documents[row].tolist(), key=lambda n: n if n >= 0 else 99)
    for ahead, learned in ((1, True), (2, True), (1, False)):
        positions = batch.positions(ahead, learned)
        assert len(positions) > 300
        for row, column in ((position // 192, position % 192) for position in positions.tolist()):
            assert batch.learned[row, column + ahead] == learned
            assert batch.documents[row, column] == batch.documents[row, column + ahead] >= 0


def test_what_is_spelled_goes_letter_by_letter(encoder: Encoder) -> None:
    item = next(item for item in held_out_items("reverse", 50) if item.language == "en")
    chat = encoder.chat(item)
    answer = [id for id, learned in zip(chat.ids, chat.learned, strict=True) if learned]
    assert encoder.tokenizer.decode(answer) == item.answer
    assert all(len(encoder.tokenizer.piece(id)) == 1 for id in answer[-1 - len(item.spelled) : -1])
    assert tuple(chat.ids[: -len(answer)]) == encoder.template.prompt(item.messages, encoder.tokenizer).ids


def test_a_conversation_reads_as_a_runtime_writes_it(encoder: Encoder) -> None:
    """But that a model ends its answers by the end token, and its answers begin, and are spelled, by other pieces."""
    items = list(itertools.islice(draw_talk(random.Random(5)), 40))
    assert len({item.prompt for item in items}) < 40, "some are asked again"
    *past, last = items
    system = "Be brief."
    talk = encoder.talk(items, [True] * len(past) + [False], 10_000, system)
    answer = encoder.answer(last)
    assert talk.ids[:-1] == [*encoder.prompt(last, past, system), *answer]
    ends = [at for at, (id, target) in enumerate(zip(talk.ids, talk.targets, strict=True)) if id != target]
    assert len(ends) == len(items)
    assert all(talk.ids[at] == encoder.separator and talk.targets[at] == encoder.end for at in ends)
    assert sum(talk.learned) == len(answer) + 1 and all(talk.learned[-len(answer) - 1 :])
    written = encoder.talk(items, itertools.repeat(False), 10_000, system)
    assert sum(written.learned) == sum(len(encoder.answer(item)) + 1 for item in items)
    assert encoder.tokenizer.decode(written.ids) == encoder.tokenizer.decode(talk.ids)
    assert encoder.talk(items, itertools.repeat(False), 100, system).ids == written.ids[:100]


def test_some_batches_are_of_long_conversations(encoder: Encoder) -> None:
    shapes = [training_batch(encoder, 0, LONG_FROM + n, 2 * LONG).ids.shape for n in range(-LONG_EVERY, LONG_EVERY)]
    assert shapes == [(2 * LONG, COLUMNS)] * LONG_EVERY + [(2, LONG * COLUMNS)] + [(2 * LONG, COLUMNS)] * (
        LONG_EVERY - 1
    )
    batch = training_batch(encoder, 0, LONG_FROM, 2 * LONG)
    assert batch.ids.shape == (2, LONG * COLUMNS) and (batch.documents == 0).all()
    for row in batch.ids:
        assert row.tolist().count(encoder.separator) >= 20, "a conversation of twenty turns is within it"
    assert 0.1 < batch.learned.float().mean() < 0.3
