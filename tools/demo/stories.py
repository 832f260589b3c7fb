"""Short stories from a grammar, and passages with a question."""

from __future__ import annotations

import random
import re
from typing import Final

from demo.words import ADJECTIVES, ANIMALS, NAMES, OBJECTS, PLACES, Language

Fact = tuple[str, str, str, str]
"""What is told, the question about it, its answer, and what it is about."""

COLORS: Final = ADJECTIVES[:10]
CHARACTERS: Final = ADJECTIVES[:14]

_EN: Final = (
    (
        "Once there was a {color} {animal}. ",
        "A {color} {animal} lived near the {place}. ",
        "I know a {color} {animal}. ",
    ),
    ("One morning it went to the {place}. ", "One day it walked to the {place}. ", "It liked to go to the {place}. "),
    ("There it found a {adjective} {object}. ", "At the {place} it saw a {adjective} {object}. "),
    ("{name} came and said hello. ", "Then {name} came to the {place}. ", "It met {name} there. "),
    ("The {animal} gave the {object} to {name}. ", "The {animal} showed {name} the {object}. "),
    ("They were happy and went home.", "From then on they were friends.", "They played until the evening."),
)
_ZH: Final = (
    ("从前有一只{color}的{animal}。", "{place}旁边住着一只{color}的{animal}。", "我看见一只{color}的{animal}。"),
    ("一天早上,它去了{place}。", "有一天,它走到{place}。", "它喜欢去{place}。"),
    ("它在那里找到一个{adjective}的{object}。", "它在{place}看见一个{adjective}的{object}。"),
    ("{name}来了,向它问好。", "后来{name}也来到{place}。", "它在那里遇见了{name}。"),
    ("{animal}把{object}送给{name}。", "{animal}给{name}看了{object}。"),
    ("他们高兴地回家了。", "从此他们成了朋友。", "他们一直玩到晚上。"),
)


def _with_articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def story(rng: random.Random, language: Language) -> tuple[str, str, str]:
    """A story of six sentences, its animal (in English with its article), and its key."""
    column = language == "zh"
    animal, place = rng.choice(ANIMALS), rng.choice(PLACES)
    fields = {
        "animal": animal[column],
        "place": place[column],
        "color": rng.choice(CHARACTERS)[column],
        "adjective": rng.choice(ADJECTIVES)[column],
        "object": rng.choice(OBJECTS)[column],
        "name": rng.choice(NAMES)[column],
    }
    text = "".join(rng.choice(sentences) for sentences in (_ZH if column else _EN)).format(**fields)
    about = animal[column] if column else _with_articles(f"a {animal[column]}")
    return text if column else _with_articles(text), about, f"{animal[0]},{place[0]}"


def _put(language: Language, name: str, thing: str, place: str, color: str) -> Fact:
    if language == "en":
        told = f"{name} put the {thing} in the {place}."
        return told, f"Where is the {thing}?", f"The {thing} is in the {place}.", f"{thing},{place}"
    return f"{name}把{thing}放在{place}里。", f"{thing}在哪里?", f"{thing}在{place}里。", f"{thing},{place}"


def _went(language: Language, name: str, thing: str, place: str, color: str) -> Fact:
    if language == "en":
        return f"{name} went to the {place}.", f"Where is {name}?", f"{name} is in the {place}.", f"{name},{place}"
    return f"{name}去了{place}。", f"{name}在哪里?", f"{name}在{place}。", f"{name},{place}"


def _has(language: Language, name: str, thing: str, place: str, color: str) -> Fact:
    if language == "en":
        what = f"{name} has a {color} {thing}."
        return what, f"What does {name} have?", what, f"{name},{thing}"
    return f"{name}有一个{color}的{thing}。", f"{name}有什么?", f"{name}有一个{color}的{thing}。", f"{name},{thing}"


def passage(rng: random.Random, language: Language, answerable: bool = True) -> tuple[str, str, str, tuple[str, ...]]:
    """Two or three facts about different people, things and places, a question about one, its answer, and the keys:
    first that of the fact that is asked about.

    When not `answerable`, the fact that is asked about is left out.
    """
    column = language == "zh"
    count = rng.randint(2, 3) + (not answerable)
    kinds = [rng.choice((_put, _went, _has)) for _ in range(count)]
    lots = zip(
        [name[column] for name in rng.sample(NAMES, count)],
        [thing[column] for thing in rng.sample(OBJECTS, count)],
        [place[column] for place in rng.sample(PLACES, count)],
        [color[column] for color in rng.sample(COLORS, count)],
        strict=True,
    )
    facts = [kind(language, *lot) for kind, lot in zip(kinds, lots, strict=True)]
    number = rng.randrange(count)
    _, question, answer, key = facts[number]
    others = [fact for place, fact in enumerate(facts) if place != number]
    told = [fact[0] for fact in (facts if answerable else others)]
    return ("" if column else " ").join(told), question, answer, (key, *(fact[3] for fact in others))
