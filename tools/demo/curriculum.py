"""The curriculum: questions with answers that a person would expect, in English and Chinese, written by chance.

What an item is about (its operands, or its word) is its `keys`. A hash of a task's key decides for good whether its
training may see it, be it asked or told in passing; the last phrasings of a form are kept from training as well.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from demo.phrasings import HELD_OUT_PHRASINGS, PHRASINGS
from demo.stories import passage, story
from demo.words import ADJECTIVES, CITIES, DICTIONARY, MONTHS, NAMES, OBJECTS, SPELLING, Language, split_words
from ernie_rt.errors import OptionError

Split = Literal["train", "held_out"]

LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")
HELD_OUT_ONE_IN: Final = 8
MAX_SPELLED: Final = 6
ENOUGH_TRIES: Final = 1000
"""Draws in turn without a new item, after which an examination has them all."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a task says before it is phrased: the form, what fills its phrasing, the answer, and the keys.

    `spelled` is the end of the answer that the model has to write letter by letter. `told` are keys of what is said in
    passing: training may not see held-out ones there either, while an examination asks beside whatever comes.
    """

    form: str
    fields: Mapping[str, object]
    answer: str
    keys: tuple[str, ...] = ()
    spelled: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """A question and its answer. `phrasing` counts within the form's list; `keys` are what training may not share."""

    task: str
    language: Language
    form: str
    phrasing: int
    prompt: str
    answer: str
    keys: tuple[str, ...]
    spelled: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.prompt}]


def is_held_out(task: str, key: str) -> bool:
    """Whether training never sees `key` in `task`; decided by a hash, so by no seed."""
    digest = hashlib.sha256(f"{task}/{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


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
    return Item(task, language, draft.form, number, prompt, draft.answer, draft.keys, draft.spelled)


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


def _pick(rng: random.Random, pairs: tuple[tuple[str, str], ...], language: Language) -> str:
    return rng.choice(pairs)[language == "zh"]


def _arithmetic(rng: random.Random, language: Language, split: Split) -> Draft:
    """A sum as people do it in their heads, tens first: "47 + 38 = 77 + 8 = 85"."""
    a, b = rng.randrange(100), rng.randrange(100)
    form, sign, direction = rng.choice((("add", "+", 1), ("subtract", "-", -1)))
    if form == "subtract":
        a, b = max(a, b), min(a, b)
    tens, ones = b - b % 10, b % 10
    steps = [(a, b), (a + direction * tens, ones)] if tens and ones else [(a, b)]
    keys = tuple(f"{min(step)}+{max(step)}" if form == "add" else "{}-{}".format(*step) for step in steps)
    answer = " = ".join([*(f"{x} {sign} {y}" for x, y in steps), str(a + direction * b)])
    return Draft(form, {"a": a, "b": b}, answer, keys[:1], told=keys[1:])


def _count(rng: random.Random, language: Language, split: Split) -> Draft:
    n = rng.randint(2, 8)
    words = rng.sample(POOLS["count", language, split], n)
    answer = f"There are {n} words." if language == "en" else f"一共有{n}个词。"
    return Draft("count", {"words": (", " if language == "en" else "、").join(words)}, answer, tuple(words))


def _sequence(rng: random.Random, language: Language, split: Split) -> Draft:
    a = rng.randrange(94)
    b = a + rng.randint(2, 6)
    numbers = (", " if language == "en" else "、").join(map(str, range(a, b + 1)))
    return Draft("sequence", {"a": a, "b": b}, numbers, (f"{a},{b}",))


def _sort(rng: random.Random, language: Language, split: Split) -> Draft:
    numbers = rng.sample(range(10, 100), 3)
    form = rng.choice(("ascending", "descending"))
    comma = ", " if language == "en" else "、"
    answer = comma.join(map(str, sorted(numbers, reverse=form == "descending")))
    key = ",".join(map(str, sorted(numbers)))
    return Draft(form, {"numbers": comma.join(map(str, numbers))}, answer, (key,))


def _compare(rng: random.Random, language: Language, split: Split) -> Draft:
    low, high = sorted(rng.sample(range(10, 100), 2))
    first, second = rng.sample((low, high), 2)
    form = rng.choice(("larger", "smaller"))
    winner, other = (high, low) if form == "larger" else (low, high)
    sign = {"larger": "大", "smaller": "小"}[form]
    answer = f"{winner} is {form} than {other}." if language == "en" else f"{winner}比{other}{sign}。"
    return Draft(form, {"a": first, "b": second}, answer, (f"{low},{high}",))


def _invented_word(rng: random.Random) -> str:
    """Letters that look like a word, to teach how pieces are spelled."""
    if rng.random() < 0.5:  # ends of words in new company
        return (rng.choice(SPELLING)[: rng.randint(1, 4)] + rng.choice(SPELLING)[-rng.randint(1, 4) :])[:MAX_SPELLED]
    syllables = (
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiouy") + rng.choice(("", "", *"nrslt")) for _ in range(3)
    )
    return "".join(syllables)[: rng.randint(3, MAX_SPELLED)]


def _reverse(rng: random.Random, language: Language, split: Split) -> Draft:
    """Of English words, asked about in either language: a Chinese word has no letters."""
    invented = split == "train" and rng.random() < 0.6
    word = _invented_word(rng) if invented else rng.choice(POOLS["reverse", "en", split])
    answer = f"{' '.join(word)} → {word[::-1]}"
    return Draft("reverse", {"word": word}, answer, (word,), spelled=word[::-1], told=(word[::-1],))


def _greeting(rng: random.Random, language: Language, split: Split) -> Draft:
    answer = "Hello! What do you want to know?" if language == "en" else "你好!你想知道什么?"
    return Draft("greeting", {}, answer)


UNITS: Final = (
    ("kilometers", "公里", "meters", "米", 1000),
    ("meters", "米", "centimeters", "厘米", 100),
    ("centimeters", "厘米", "millimeters", "毫米", 10),
    ("kilograms", "公斤", "grams", "克", 1000),
    ("tons", "吨", "kilograms", "公斤", 1000),
    ("liters", "升", "milliliters", "毫升", 1000),
    ("dollars", "美元", "cents", "美分", 100),
    ("centuries", "世纪", "years", "年", 100),
)


def _units(rng: random.Random, language: Language, split: Split) -> Draft:
    big_en, big_zh, small_en, small_zh, factor = rng.choice(UNITS)
    n = rng.randint(2, 99)
    big, small = (big_en, small_en) if language == "en" else (big_zh, small_zh)
    space = " " if language == "en" else ""
    answer = f"{n}{space}{big} = {n * factor}{space}{small}"
    return Draft("units", {"n": n, "big": big, "small": small}, answer, (f"{n} {big_en}",))


def _day(month: int, day: int, language: Language) -> str:
    return f"{MONTHS[month - 1]} {day}" if language == "en" else f"{month}月{day}日"


def _dates(rng: random.Random, language: Language, split: Split) -> Draft:
    month = rng.randint(1, 12)
    last = calendar.monthrange(2023, month)[1]
    day = rng.randint(1, last)
    if rng.random() < 0.5:
        year = rng.randint(1900, 2099)
        said = f"{MONTHS[month - 1]} {day}, {year}" if language == "en" else f"{year}年{month}月{day}日"
        iso = f"{year}-{month:02}-{day:02}"
        return Draft("date", {"date": said}, iso, (iso,))
    # Which day follows 28 February depends on the year.
    if rng.random() < 0.5 and (month, day) != (2, 28):
        form, then = "after", (month, day + 1) if day < last else (month % 12 + 1, 1)
    elif (month, day) != (3, 1):
        before = (month - 2) % 12 + 1
        form, then = "before", (month, day - 1) if day > 1 else (before, calendar.monthrange(2023, before)[1])
    else:
        return _dates(rng, language, split)
    key = " ".join(f"{month}-{day}" for month, day in sorted([(month, day), then]))
    return Draft(form, {"date": _day(month, day, language)}, _day(*then, language), (key,))


_ONES: Final = split_words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS: Final = split_words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_HANZI: Final = "零一二三四五六七八九"


def number_words(n: int, language: Language) -> str:
    """The name of 0 … 999: "three hundred and five", 三百零五."""
    hundreds, rest = divmod(n, 100)
    tens, ones = divmod(rest, 10)
    if language == "en":
        small = _ONES[rest] if rest < 20 else _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
        if not hundreds:
            return small
        return f"{_ONES[hundreds]} hundred" + (f" and {small}" if rest else "")
    if not hundreds:
        if n < 10:
            return _HANZI[n]
        return (_HANZI[tens] if tens > 1 else "") + "十" + (_HANZI[ones] if ones else "")
    words = _HANZI[hundreds] + "百"
    if tens:
        return words + _HANZI[tens] + "十" + (_HANZI[ones] if ones else "")
    return words + (f"零{_HANZI[ones]}" if ones else "")


def _numbers(rng: random.Random, language: Language, split: Split) -> Draft:
    n = rng.randrange(rng.choice((100, 1000, 1000)))
    words = number_words(n, language)
    if rng.random() < 0.5:
        return Draft("to_words", {"n": n}, words, (str(n),))
    return Draft("to_digits", {"n": words}, str(n), (str(n),))


def _translate(rng: random.Random, language: Language, split: Split) -> Draft:
    form = rng.choice(("to_chinese", "to_english"))
    if rng.random() < 0.5:
        english, chinese = rng.choice(DICTIONARY)
        keys: tuple[str, ...] = ()
    else:
        adjective, noun = rng.choice(ADJECTIVES), rng.choice(OBJECTS)
        english, chinese = f"{adjective[0]} {noun[0]}", f"{adjective[1]}的{noun[1]}"
        keys = (f"{adjective[0]},{noun[0]}",)
    text, answer = (english, chinese) if form == "to_chinese" else (chinese, english)
    return Draft(form, {"text": text}, answer, keys)


def _passage(rng: random.Random, language: Language, split: Split) -> Draft:
    text, question, answer, keys = passage(rng, language)
    return Draft("passage", {"passage": text, "question": question}, answer, keys[:1], told=keys[1:])


def _unknown(rng: random.Random, language: Language, split: Split) -> Draft:
    if rng.random() < 0.5:
        text, question, _, keys = passage(rng, language, answerable=False)
        answer = "The text does not say." if language == "en" else "文中没有说。"
        return Draft("passage", {"passage": text, "question": question}, answer, keys[:1], told=keys[1:])
    answer = "I do not know." if language == "en" else "我不知道。"
    if rng.random() < 0.5:
        name = _pick(rng, NAMES, language)
        return Draft("person", {"name": name}, answer, (name,))
    thing = _pick(rng, OBJECTS, language)
    return Draft("thing", {"object": thing}, answer, (thing,))


def _json(rng: random.Random, language: Language, split: Split) -> Draft:
    english = language == "en"
    number = rng.randint(2, 99)
    if rng.random() < 0.5:
        who, city = _pick(rng, NAMES, language), _pick(rng, CITIES, language)
        texts = (
            ("{0} is {1} years old and lives in {2}.", "{0} lives in {2} and is {1} years old.")
            if english
            else ("{0}今年{1}岁,住在{2}。", "{0}住在{2},今年{1}岁。")
        )
        values = dict(
            zip(("name", "age", "city") if english else ("姓名", "年龄", "城市"), (who, number, city), strict=True)
        )
    else:
        who, color = _pick(rng, OBJECTS, language), _pick(rng, ADJECTIVES[:10], language)
        texts = (
            ("The {2} {0} costs {1} dollars.", "A {2} {0} for {1} dollars.")
            if english
            else ("{2}的{0}卖{1}元。", "一个{2}的{0},{1}元。")
        )
        values = dict(
            zip(("item", "price", "color") if english else ("物品", "价格", "颜色"), (who, number, color), strict=True)
        )
    text = rng.choice(texts).format(*values.values())
    return Draft("json", {"text": text}, json.dumps(values, ensure_ascii=False), (f"{who},{number}",))


def _story(rng: random.Random, language: Language, split: Split) -> Draft:
    text, animal, key = story(rng, language)
    return Draft("story", {"animal": animal}, text, (key,))


TASKS: Final[Mapping[str, Callable[[random.Random, Language, Split], Draft]]] = {
    "arithmetic": _arithmetic,
    "count": _count,
    "sequence": _sequence,
    "sort": _sort,
    "compare": _compare,
    "reverse": _reverse,
    "units": _units,
    "dates": _dates,
    "numbers": _numbers,
    "translate": _translate,
    "passage": _passage,
    "unknown": _unknown,
    "json": _json,
    "story": _story,
    "greeting": _greeting,
}

EXAMINED: Final = tuple(task for task in TASKS if task not in ("story", "greeting"))
"""The tasks with one right answer that can be held out; of a story there is only its perplexity."""

WEIGHTS: Final[Mapping[str, float]] = dict.fromkeys(TASKS, 1.0) | {
    "arithmetic": 2.5,
    "count": 0.6,
    "sequence": 0.7,
    "compare": 0.8,
    "reverse": 3.0,
    "units": 0.5,
    "numbers": 1.5,
    "translate": 2.0,
    "passage": 3.0,
    "unknown": 1.5,
    "json": 0.7,
    "story": 0.3,
    "greeting": 0.15,
}
"""How often training draws a task, beside the others."""

POOLED: Final[tuple[tuple[str, Language], ...]] = (("count", "en"), ("count", "zh"), ("reverse", "en"))
POOLS: Final[Mapping[tuple[str, Language, Split], list[str]]] = {
    (task, language, split): [
        word
        for word in (SPELLING if language == "en" else tuple(chinese for _, chinese in DICTIONARY))
        if is_held_out(task, word) == (split == "held_out") and (task != "reverse" or 2 <= len(word) <= MAX_SPELLED)
    ]
    for task, language in POOLED
    for split in ("train", "held_out")
}
