"""The curriculum: questions with answers that a person would expect, in English and Chinese, written by chance.

What an item is about (its operands, or its word) is its `keys`. A hash of a task's key decides for good whether its
training may see it, be it asked or told in passing; the last phrasings of a form are kept from training as well.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from demo.phrasings import HELD_OUT_PHRASINGS, PHRASINGS
from demo.tasks import TASKS, UNKNOWN, Split, is_held_out
from demo.words import Language
from ernie_rt.errors import OptionError

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
ENOUGH_TRIES: Final = 1000
"""Draws in turn without a new item, after which an examination has them all."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question and its answer. `phrasing` counts within the form's list; `keys` are what training may not share.

    `ways` names the ways of writing that the prompt was changed by.
    """

    task: str
    language: Language
    form: str
    phrasing: int
    prompt: str
    answer: str
    keys: tuple[str, ...]
    spelled: str = ""
    about: str = ""
    ways: tuple[str, ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.prompt}]


def phrasing_is_held_out(form: str, language: Language, phrasing: int) -> bool:
    return phrasing >= len(PHRASINGS[form, language]) - HELD_OUT_PHRASINGS


def draw(rng: random.Random, task: str, language: Language, split: Split, phrasing: Split | None = None) -> Item:
    """Write an item of `task` with keys of `split`, in a phrasing of `phrasing` (when not given, of the same split)."""
    held_out = split == "held_out"
    while True:
        draft = TASKS[task](rng, language, split)
        told = () if held_out else draft.told
        if all(is_held_out(task, key) == held_out for key in draft.keys + told):
            break
    templates = PHRASINGS[draft.form, language]
    trained = len(templates) - HELD_OUT_PHRASINGS
    number = rng.randrange(trained, len(templates)) if (phrasing or split) == "held_out" else rng.randrange(trained)
    prompt = templates[number].format(**draft.fields)
    item = Item(task, language, draft.form, number, prompt, draft.answer, draft.keys, draft.spelled, draft.about)
    return reworded(item, prompt)


def reworded(item: Item, prompt: str, *ways: str) -> Item:
    """The same question by another text, changed in `ways`.

    What has no word of any language ("94 × 24") is refused in English.
    """
    answer = item.answer
    if item.language == "zh" and answer in UNKNOWN.values():
        answer = UNKNOWN["zh" if re.search(r"[\u4e00-\u9fff]", prompt) else "en"]
    return replace(item, prompt=prompt, answer=answer, ways=(*item.ways, *ways))


def held_out_items(task: str, count: int, seed: int = 0) -> list[Item]:
    """`count` different items for an examination, half of them in phrasings that training knows, half in new ones.

    An item without keys is a word that training has to teach (a translation): it comes in new phrasings alone. Raises
    OptionError when a task has fewer.
    """
    rng = random.Random(f"{seed}/{task}")
    found: dict[tuple[str, str], Item] = {}
    vain = 0
    while len(found) < count:
        number = len(found)
        phrasing: Split = "train" if number // 2 % 2 else "held_out"
        item = draw(rng, task, LANGUAGES[number % 2], "held_out", phrasing)
        if item.keys or phrasing_is_held_out(item.form, item.language, item.phrasing):
            found[item.prompt, item.answer] = item
        vain = vain + 1 if len(found) == number else 0
        if vain == ENOUGH_TRIES:
            raise OptionError(f"task {task} has no more held-out questions", expected=f"{count} different ones",
                              found=number, hint="Ask for fewer items")  # fmt: skip
    return list(found.values())


EXAMINED: Final = tuple(task for task in TASKS if task not in ("story", "greeting"))
"""The tasks with one right answer that can be held out; of a story there is only its perplexity."""

WEIGHTS: Final[Mapping[str, float]] = dict.fromkeys(TASKS, 1.0) | {
    "arithmetic": 2.5,
    "count": 0.8,
    "sequence": 0.7,
    "sort": 1.3,
    "compare": 1.0,
    "reverse": 3.0,
    "units": 1.0,
    "dates": 1.5,
    "numbers": 1.5,
    "translate": 2.0,
    "passage": 3.0,
    "unknown": 1.5,
    "beyond": 2.0,
    "json": 0.7,
    "story": 0.3,
    "greeting": 0.4,
}
"""How often training draws a task, beside the others."""
