"""The tasks: what is asked, by chance, and the right answer."""

from __future__ import annotations

import calendar
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from demo.stories import passage, story
from demo.words import (
    ADJECTIVES,
    CITIES,
    COUNTRIES,
    DICTIONARY,
    MONTHS,
    MORE_WORDS,
    NAMES,
    OBJECTS,
    SPELLING,
    SUBJECTS,
    UNKNOWN_HANZI,
    Language,
    split_words,
)

Split = Literal["train", "held_out"]

HELD_OUT_ONE_IN: Final = 8
MAX_SPELLED: Final = 6
UNKNOWN: Final[Mapping[Language, str]] = {"en": "I do not know.", "zh": "我不知道。"}
UNTOLD: Final[Mapping[Language, str]] = {"en": "The text does not say.", "zh": "文中没有说。"}
REFUSALS: Final = frozenset({*UNKNOWN.values(), *UNTOLD.values()})


@dataclass(frozen=True, slots=True)
class Draft:
    """What a task says before it is phrased: the form, what fills its phrasing, the answer, and the keys.

    `spelled` is the end of the answer that the model has to write letter by letter. `told` are keys of what is said in
    passing: training may not see held-out ones there either, while an examination asks beside whatever comes. `about`
    is what a person might put in quotation marks.
    """

    form: str
    fields: Mapping[str, object]
    answer: str
    keys: tuple[str, ...] = ()
    spelled: str = ""
    told: tuple[str, ...] = ()
    about: str = ""


def is_held_out(task: str, key: str) -> bool:
    """Whether training never sees `key` in `task`; decided by a hash, so by no seed."""
    digest = hashlib.sha256(f"{task}/{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


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
    numbers = rng.sample(range(rng.choice((1, 10)), 100), rng.choice((3, 3, 4, 5)))
    form = rng.choice(("ascending", "descending"))
    comma = ", " if language == "en" else "、"
    answer = comma.join(map(str, sorted(numbers, reverse=form == "descending")))
    key = ",".join(map(str, sorted(numbers)))
    return Draft(form, {"numbers": comma.join(map(str, numbers))}, answer, (key,))


def _compare(rng: random.Random, language: Language, split: Split) -> Draft:
    low, high = sorted(rng.sample(range(rng.choice((1, 10)), 100), 2))
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
    return Draft("reverse", {"word": word}, answer, (word,), spelled=word[::-1], told=(word[::-1],), about=word)


MANNERS: Final[Mapping[str, Mapping[Language, str]]] = {
    "greeting": {"en": "Hello! What do you want to know?", "zh": "你好!你想知道什么?"},
    "identity": {
        "en": "I am a small demo model. Ask me about numbers, dates, units or words.",
        "zh": "我是一个小小的演示模型。问我数字、日期、单位或者词语吧。",
    },
    "thanks": {"en": "You are welcome!", "zh": "不客气!"},
    "farewell": {"en": "Goodbye!", "zh": "再见!"},
}


def _greeting(rng: random.Random, language: Language, split: Split) -> Draft:
    form = rng.choice(("greeting", "greeting", "identity", "thanks", "farewell"))
    return Draft(form, {}, MANNERS[form][language])


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
    day = rng.choice((1, last, rng.randint(1, last), rng.randint(1, last)))
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
        return Draft("to_words", {"n": n}, words, (str(n),), about=str(n))
    return Draft("to_digits", {"n": words}, str(n), (str(n),), about=words)


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
    return Draft(form, {"text": text}, answer, keys, about=text)


def _passage(rng: random.Random, language: Language, split: Split) -> Draft:
    text, question, answer, keys = passage(rng, language)
    fields = {"passage": text, "question": question}
    return Draft("passage", fields, answer, keys[:1], told=keys[1:], about=text)


def _unknown(rng: random.Random, language: Language, split: Split) -> Draft:
    if rng.random() < 0.5:
        text, question, _, keys = passage(rng, language, answerable=False)
        fields = {"passage": text, "question": question}
        return Draft("passage", fields, UNTOLD[language], keys[:1], told=keys[1:], about=text)
    answer = UNKNOWN[language]
    if rng.random() < 0.5:
        name = _pick(rng, NAMES, language)
        return Draft("person", {"name": name}, answer, (name,))
    thing = _pick(rng, OBJECTS, language)
    return Draft("thing", {"object": thing}, answer, (thing,))


def _beyond(rng: random.Random, language: Language, split: Split) -> Draft:
    """What nobody taught the demo: other sums, larger numbers, other units and words, and the world."""
    answer = UNKNOWN[language]
    form = rng.choice(("times", "divide", "large", "chain", "units", "word", "country", "subject", "world"))
    match form:
        case "chain":
            a, b, c = (rng.randrange(100) for _ in range(3))
            return Draft(form, {"a": a, "b": b, "c": c}, answer, (f"{a},{b},{c}",))
        case "units":  # from small to big, or from one kind to another
            unit, other = rng.sample(UNITS, 2)
            n = rng.choice((rng.randint(2, 99), unit[4] * rng.randint(1, 20)))
            big, small = (unit[2:4], unit[:2]) if rng.random() < 0.5 else (unit[:2], other[2:4])
            if (*big, *small) in {each[:4] for each in UNITS}:
                return _beyond(rng, language, split)
            column = language == "zh"
            return Draft(form, {"n": n, "big": big[column], "small": small[column]}, answer, (f"{n} {big[0]}",))
        case "times" | "divide":
            a, b = rng.randrange(100), rng.randrange(2, 100)
            return Draft(form, {"a": a, "b": b}, answer, (f"{a},{b}",))
        case "large":
            a, b = rng.randrange(100, 1000), rng.randrange(1, 1000)
            form = rng.choice(("add", "subtract"))
            if form == "subtract" and rng.random() < 0.3:  # less than nothing
                b = rng.randrange(1, 100)
                a = rng.randrange(b)
            return Draft(form, {"a": a, "b": b}, answer, (f"{a},{b}",))
        case "word":
            form = rng.choice(("to_chinese", "to_english"))
            word = rng.choice(POOLS["beyond", "en" if form == "to_chinese" else "zh", split])
            return Draft(form, {"text": word}, answer, (word,), about=word)
        case "country" | "subject":
            english, chinese = rng.choice(COUNTRIES if form == "country" else SUBJECTS)
            return Draft(form, {form: english if language == "en" else chinese}, answer, (english,))
    return Draft("world", {}, answer)


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
    return Draft("json", {"text": text}, json.dumps(values, ensure_ascii=False), (f"{who},{number}",), about=text)


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
    "beyond": _beyond,
    "json": _json,
    "story": _story,
    "greeting": _greeting,
}

WORDS: Final[Mapping[tuple[str, Language], tuple[str, ...]]] = {
    ("count", "en"): SPELLING,
    ("count", "zh"): tuple(chinese for _, chinese in DICTIONARY),
    ("reverse", "en"): tuple(word for word in SPELLING if 2 <= len(word) <= MAX_SPELLED),
    ("beyond", "en"): tuple(word for word in MORE_WORDS if word not in dict(DICTIONARY)),
    ("beyond", "zh"): UNKNOWN_HANZI,
}
POOLS: Final[Mapping[tuple[str, Language, Split], list[str]]] = {
    (task, language, split): [word for word in words if is_held_out(task, word) == (split == "held_out")]
    for (task, language), words in WORDS.items()
    for split in ("train", "held_out")
}
"""The words that a task asks about, by whether training may see them."""
