"""What is held out is nowhere in what is taught: read from the texts, whatever keys the curriculum says they have."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Hashable

import pytest

from demo.curriculum import EXAMINED, LANGUAGES, Item, draw, held_out_items, phrasing_is_held_out
from demo.phrasings import HELD_OUT_PHRASINGS, PHRASINGS
from demo.surface import written
from demo.tasks import TASKS, is_held_out
from demo.words import ADJECTIVES, ANIMALS, MONTHS, NAMES, OBJECTS, PLACES
from ernie_rt.errors import OptionError

KINDS = {
    word: kind
    for kind, pairs in {
        "color": ADJECTIVES, "animal": ANIMALS, "object": OBJECTS, "place": PLACES, "name": NAMES,
    }.items()
    for pair in pairs
    for word in pair
}  # fmt: skip
VOCABULARY = {
    "en": re.compile(rf"\b(?:{'|'.join(word for word in KINDS if word.isascii())})\b"),
    "zh": re.compile("|".join(sorted((word for word in KINDS if not word.isascii()), key=len, reverse=True))),
}
LIST = {"en": re.compile(r"\b[a-z]+(?:, [a-z]+)+"), "zh": re.compile(r"\w+(?:、\w+)+")}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def words(text: str, language: str, *kinds: str) -> list[str]:
    return [word for word in VOCABULARY[language].findall(text) if KINDS[word] in kinds]


def days(text: str, language: str) -> list[tuple[int, ...]]:
    if language == "zh":
        return [(int(month), int(day)) for month, day in re.findall(r"(\d+)月(\d+)日", text)]
    found = re.findall(rf"({'|'.join(MONTHS)}) (\d+)", text)
    return [(MONTHS.index(month) + 1, int(day)) for month, day in found]


def told(text: str, language: str) -> set[Hashable]:
    """Of each sentence, what is where, who is where, or who has what."""
    found = [words(sentence, language, "name", "object", "place")[-2:] for sentence in re.split(r"[.。\n]", text)]
    return {tuple(pair) for pair in found if len(pair) == 2}


def sums(item: Item) -> list[Hashable]:
    """The steps of an answer; the first is what was asked."""
    steps = re.findall(r"(\d+) ([+-]) (\d+)", item.answer)
    return [(sign, frozenset((a, b)) if sign == "+" else (a, b)) for a, sign, b in steps]


def facts(item: Item) -> set[Hashable]:
    """What an item asks or says, as its text shows it."""
    match item.task:
        case "arithmetic":
            return set(sums(item))
        case "count":
            (listed,) = LIST[item.language].findall(item.prompt)
            return set(re.split(", |、", listed))
        case "sequence":
            return {(numbers(item.answer)[0], numbers(item.answer)[-1])}
        case "sort" | "compare":
            return {frozenset(numbers(item.prompt))}
        case "reverse":
            letters, backwards = item.answer.split(" → ")
            return {letters.replace(" ", ""), backwards}
        case "units":
            return {item.answer.split(" = ")[0]}
        case "dates":
            if item.form == "date":
                return {item.answer}
            pair = days(item.prompt, item.language) + days(item.answer, item.language)
            assert len(pair) == 2
            return {frozenset(pair)}
        case "numbers":
            return {numbers(item.prompt + item.answer)}
        case "translate":
            english = item.answer if item.form == "to_english" else item.prompt
            return {
                f"{adjective} {thing}"
                for adjective, thing in re.findall(r"(?=(?<![a-z])([a-z]+) ([a-z]+)(?![a-z]))", english)
                if KINDS.get(adjective) == "color" and KINDS.get(thing) == "object"
            }
        case "passage":
            return told(item.prompt, item.language)
        case "unknown" if item.form == "passage":
            return told(item.prompt, item.language) | {tuple(item.keys[0].split(","))}
        case "unknown":
            prompt = item.prompt.replace("花了", "")  # which is no flower
            return set(words(prompt, item.language, {"person": "name", "thing": "object"}[item.form]))
        case "beyond":
            return set(item.keys)
        case "json":
            values = json.loads(item.answer)
            (number,) = (value for value in values.values() if isinstance(value, int))
            return {(next(values[name] for name in ("name", "item", "姓名", "物品") if name in values), number)}
        case "story":
            (animal,) = set(words(item.answer, item.language, "animal"))
            return {(animal, place) for place in words(item.answer, item.language, "place")}
    raise AssertionError(item.task)


def asked(item: Item) -> set[Hashable]:
    """Of `facts`, those that an examination is about."""
    match item.task:
        case "passage":
            return told(item.answer, item.language)
        case "unknown" if item.form == "passage":
            return {tuple(item.keys[0].split(","))}
        case "arithmetic":
            return {sums(item)[0]}
        case "reverse":
            return {item.answer.split(" → ")[0].replace(" ", "")}
    return facts(item)


@pytest.mark.parametrize("task", [*EXAMINED, "story"])
def test_no_text_of_training_says_what_an_examination_asks(task: str) -> None:
    rng = random.Random(task)
    if task == "story":
        examined = [draw(rng, task, LANGUAGES[n % 2], "held_out") for n in range(200)]
    else:
        examined = [item for seed in (0, 1) for item in held_out_items(task, 300, seed)]
    held_out = set().union(*map(asked, examined))
    assert len(held_out) > (40 if task == "count" else 15) and all(map(asked, (item for item in examined if item.keys)))
    prompts = {item.prompt for item in examined} if task != "story" else set()
    new = {
        (item.form, item.language, item.phrasing)
        for item in examined
        if phrasing_is_held_out(item.form, item.language, item.phrasing)
    }
    for number in range(4000):
        taught = draw(rng, task, LANGUAGES[number % 2], "train")
        assert not held_out & facts(taught), taught
        assert written(rng, taught).prompt not in prompts
        assert (taught.form, taught.language, taught.phrasing) not in new


@pytest.mark.parametrize("task", EXAMINED)
def test_an_examination(task: str) -> None:
    examined = held_out_items(task, 300)
    assert len({(item.prompt, item.answer) for item in examined}) == 300
    assert all(is_held_out(task, key) for item in examined for key in item.keys)
    new = [item for item in examined if phrasing_is_held_out(item.form, item.language, item.phrasing)]
    assert len(new) >= 150 and {item.language for item in new} == {"en", "zh"}
    # A translation of one word is no news but for its phrasing.
    assert all(item.keys or item in new for item in examined)


def test_an_examination_of_more_than_there_is() -> None:
    with pytest.raises(OptionError, match="task sequence has no more held-out questions; expected 900 different ones"):
        held_out_items("sequence", 900)
    with pytest.raises(OptionError, match="task greeting"):
        held_out_items("greeting", 5)


def bare(template: str) -> str:
    """A phrasing without what ways of writing change most, and without what it is about."""
    text = re.sub(r"^please |,? please\W*$", "", template.lower()).removeprefix("请").rstrip("?.。!")
    return re.sub(r"\{\w+\}", "{}", text)


def test_no_held_out_phrasing_is_a_taught_one_said_differently() -> None:
    """Nor one that another form teaches with its own fillings."""
    taught = {
        (language, bare(template)): form
        for (form, language), templates in PHRASINGS.items()
        for template in templates[:-HELD_OUT_PHRASINGS]
    }
    for (form, language), templates in PHRASINGS.items():
        assert len(templates) - HELD_OUT_PHRASINGS >= 4, (form, language)
        assert len(set(templates)) == len(templates), (form, language)
        for template in templates[-HELD_OUT_PHRASINGS:]:
            assert (language, bare(template)) not in taught, template


def test_every_task_is_taught_in_both_languages() -> None:
    for task, language in itertools.product(TASKS, LANGUAGES):
        item = draw(random.Random(0), task, language, "train")
        assert (item.task, item.language) == (task, language)
