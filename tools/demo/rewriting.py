"""Functions that write a question's text in another way: each gives the text back where it has nothing to change."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from demo.curriculum import Item
from demo.phrasings import PHRASINGS
from demo.tasks import number_words
from demo.words import MONTHS, Language, split_words

# Numbers

COUNTED: Final = frozenset({"arithmetic", "sequence", "sort", "compare", "units", "beyond"})
"""Tasks whose numbers may as well be said in words."""
FULL_WIDTH: Final = {code: code + 0xFEE0 for code in map(ord, "0123456789")}


def in_words(rng: random.Random, item: Item, single: bool = False, hyphen: str = "-") -> str:
    """All numbers, or a `single` one of several; another `hyphen` is for numbers that have one."""
    found = list(re.finditer(r"\d+", item.prompt))
    if item.task not in COUNTED or len(found) < 1 + single or any(int(match[0]) > 999 for match in found):
        return item.prompt
    prompt, hyphens = item.prompt, 0
    for match in reversed([rng.choice(found)] if single else found):
        words = number_words(int(match[0]), item.language)
        if words == "二" and item.task == "units":
            words = "两"  # as one says where something is counted
        hyphens += words.count("-")
        prompt = prompt[: match.start()] + words.replace("-", hyphen) + prompt[match.end() :]
    return prompt if hyphens or hyphen == "-" else item.prompt


def full_width_digits(rng: random.Random, item: Item) -> str:
    return item.prompt.translate(FULL_WIDTH)


# Dates

SHORT_MONTHS: Final = {month: month[:3] for month in MONTHS if len(month) > 4}
EN_DATE: Final = re.compile(rf"({'|'.join(MONTHS)}) (\d+)(?:, (\d+))?")
ZH_DATE: Final = re.compile(r"(?:(\d+)年)?(\d+)月(\d+)日")


def english_date(rng: random.Random, item: Item, style: str) -> str:
    """`style` has places for the month, its short name, the day, its ordinal, and the year with what precedes it."""

    def restyle(match: re.Match[str]) -> str:
        month, day, year = match.groups()
        end = "th" if day in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(day[-1], "th")
        comma = ", " if style.startswith(("{month}", "{short}")) else " "
        date = style.format(month=month, short=SHORT_MONTHS.get(month, month), day=day, nth=f"{day}{end}")
        return date + (f"{comma}{year}" if year else "")

    return EN_DATE.sub(restyle, item.prompt) if item.task == "dates" else item.prompt


def chinese_date(rng: random.Random, item: Item, words: bool, day: str) -> str:
    def restyle(match: re.Match[str]) -> str:
        parts = [number_words(int(part), "zh") if words else part for part in match.groups()[1:]]
        year = match[1] and "".join(number_words(int(digit), "zh") if words else digit for digit in match[1])
        return (f"{year}年" if year else "") + f"{parts[0]}月{parts[1]}{day}"

    return ZH_DATE.sub(restyle, item.prompt) if item.task == "dates" else item.prompt


# Units

SHORT_UNITS: Final = {
    "kilometers": "km", "meters": "m", "centimeters": "cm", "millimeters": "mm", "kilograms": "kg", "grams": "g",
    "tons": "t", "liters": "L", "milliliters": "ml", "公里": "km", "米": "m", "厘米": "cm", "毫米": "mm", "公斤": "kg",
    "克": "g", "吨": "t", "升": "L", "毫升": "ml",
}  # fmt: skip
OTHER_UNITS: Final = {
    "kilometers": "kilometres", "meters": "metres", "centimeters": "centimetres", "millimeters": "millimetres",
    "liters": "litres", "milliliters": "millilitres", "kilograms": "kilos", "公里": "千米", "公斤": "千克",
}  # fmt: skip
UNIT: Final = re.compile("|".join(sorted({*SHORT_UNITS, *OTHER_UNITS}, key=len, reverse=True)))


def units(rng: random.Random, item: Item, names: Mapping[str, str], blank: bool, single: bool = False) -> str:
    found = [match for match in UNIT.finditer(item.prompt) if match[0] in names]
    if item.task != "units" or len(found) < 1 + single:
        return item.prompt
    prompt = item.prompt
    for match in reversed([rng.choice(found)] if single else found):
        before = prompt[: match.start()]
        if before[-1:].isdigit() and blank:
            before += " "
        elif before[-2:-1].isdigit() and not blank:
            before = before.rstrip()
        prompt = before + names[match[0]] + prompt[match.end() :]
    return prompt


def dollars(rng: random.Random, item: Item) -> str:
    return re.sub(r"(\d+)(?: dollars|美元)", r"$\1", item.prompt) if item.task == "units" else item.prompt


# Lists

LISTED: Final[Mapping[tuple[str, Language], re.Pattern[str]]] = {
    ("sort", "en"): re.compile(r"\d+(?:, \d+)+"),
    ("sort", "zh"): re.compile(r"\d+(?:、\d+)+"),
    ("count", "en"): re.compile(r"[a-z]+(?:, [a-z]+)+"),
    ("count", "zh"): re.compile(r"\w+(?:、\w+)+"),
}
"""A list of numbers in words keeps its commas: without, nobody could tell 20 and 5 from 25."""


def listed(
    rng: random.Random, item: Item, comma: str, last: str | None = None, language: Language | None = None
) -> str:
    pattern = LISTED.get((item.task, item.language))
    found = pattern and pattern.search(item.prompt)
    if not found or language not in (None, item.language):
        return item.prompt
    *parts, end = re.split(", |、", found[0])
    joined = comma.join(parts) + (comma if last is None else last) + end
    return item.prompt[: found.start()] + joined + item.prompt[found.end() :]


# Signs

SUMS: Final = frozenset({"arithmetic", "beyond"})
SIGN: Final = r" ?(?<![a-z])([-+*×÷/=]) ?"
"""And the blanks about it; a hyphen in a word is none."""


def signs(rng: random.Random, item: Item, pattern: str, put: str) -> str:
    return re.sub(pattern, put, item.prompt) if item.task in SUMS else item.prompt


def full_width_signs(rng: random.Random, item: Item) -> str:
    def widen(match: re.Match[str]) -> str:
        return match[1] if match[1] in "×÷" else chr(ord(match[1]) + 0xFEE0)

    return re.sub(SIGN, widen, item.prompt) if item.task in SUMS else item.prompt


ASKED: Final = re.compile(
    r"(?:What is |How much is |Calculate |计算|算一算)?(.*?)(?: ?= ?\??|等于多少\?|是多少\?|[?.。])?"
)
"""What is said around a sum."""


def equals(rng: random.Random, item: Item, end: str) -> str:
    """A question for a sum, put as an equation that lacks its end."""
    if item.task not in SUMS:
        return item.prompt
    asked = ASKED.fullmatch(item.prompt)
    if not asked or not re.fullmatch(r"\w+ ?(?:[-+*×÷/]|plus|minus|times|divided by|加|减|乘|除以) ?\w+", asked[1]):
        return item.prompt
    return asked[1] + (f" {end}" if item.language == "en" or " " in asked[1] else end)


# Quotation marks and contractions


def quoted(rng: random.Random, item: Item, pairs: Sequence[str]) -> str:
    opening, closing = rng.choice(pairs).split("~")
    if not item.about or item.about not in item.prompt:
        return item.prompt
    return item.prompt.replace(item.about, f"{opening}{item.about}{closing}", 1)


def contracted(rng: random.Random, item: Item, end: str) -> str:
    return re.sub(r"\b(What|How|Who|Where|When) is\b", rf"\1{end}", item.prompt)


# Manners

COMMANDS: Final = split_words(
    "Add Answer Calculate Change Compare Convert Count Divide Explain Give Help List Multiply Order Put Reverse Say "
    "Sort Spell Start Subtract Take Tell Translate Turn Write 把 用 写 求 算 翻 列 数 按 计 倒 反 排 从 介绍 解释 帮"
)
"""Beginnings that a "please" goes in front of."""
UNPREPARED: Final = frozenset({"greeting", "story"})


def mannerly(rng: random.Random, item: Item, templates: Mapping[Language, Sequence[str]]) -> str:
    """A template is filled with the question as it is {q}, with a small letter {l}, and without its end {b}: as a
    command {c}, or as no command {w}; or with what is asked for {x} ("What is {x}?").

    A template for another kind of question changes nothing.
    """
    template = rng.choice(templates[item.language])
    prompt = item.prompt
    if item.task in UNPREPARED:
        return prompt
    small = prompt[0].lower() + prompt[1:] if prompt[:2].istitle() else prompt
    bare = small.rstrip("?.。!")
    command = PHRASINGS[item.form, item.language][item.phrasing].startswith(COMMANDS)
    asked = re.fullmatch(r"What is ([^.?]+)\?", prompt)
    if ("{c}" in template and not command) or ("{w}" in template and command) or ("{x}" in template and not asked):
        return prompt
    return template.format(q=prompt, l=small, b=bare, c=bare, w=bare, x=asked and asked[1])


# How it ends, letters, widths and blanks


def ended(rng: random.Random, item: Item, ends: Sequence[str]) -> str:
    """A question mark instead of its own is for questions alone."""
    bare = item.prompt.rstrip("?.。!")
    end = rng.choice(ends)
    return item.prompt if item.prompt[-1:] in ".。" and end.strip()[:1] in ("?", "？") else bare + end


def small_letter(rng: random.Random, item: Item) -> str:
    return item.prompt[:1].lower() + item.prompt[1:]


def lower(rng: random.Random, item: Item) -> str:
    return item.prompt.lower()


def upper(rng: random.Random, item: Item) -> str:
    return item.prompt.upper()


def one_word(rng: random.Random, item: Item, change: Callable[[str], str]) -> str:
    found = list(re.finditer(r"[A-Za-z]{2,}", item.prompt))
    if not found:
        return item.prompt
    match = rng.choice(found)
    return item.prompt[: match.start()] + change(match[0]) + item.prompt[match.end() :]


def title(rng: random.Random, item: Item) -> str:
    return re.sub(r"(?<![A-Za-z'’])[a-z]", lambda match: match[0].upper(), item.prompt)


def caps_lock(rng: random.Random, item: Item) -> str:
    """What a forgotten caps lock makes of it."""
    return item.prompt.swapcase() if item.prompt[:2].istitle() else item.prompt


WIDE: Final = str.maketrans(",:?!;()", "，：？！；（）")
NARROW: Final = str.maketrans("。、，：？！", ".,,:?!")


def wide_marks(rng: random.Random, item: Item, language: Language) -> str:
    """Of English ones not a question mark alone, which is another mark at the end."""
    if item.language != language or (language == "en" and not re.search(r"[,:;!(]", item.prompt)):
        return item.prompt
    return re.sub(r"([，：？！；]) ", r"\1", item.prompt.translate(WIDE))


def narrow_marks(rng: random.Random, item: Item) -> str:
    return item.prompt.translate(NARROW) if item.language == "zh" else item.prompt


def blanks(rng: random.Random, item: Item, pattern: str, put: str, at_once: int = 0) -> str:
    """Every place, or `at_once` of them, where `pattern` occurs."""
    found = list(re.finditer(pattern, item.prompt))
    if at_once:
        found = sorted(rng.sample(found, min(at_once, len(found))), key=re.Match.start)
    prompt = item.prompt
    for match in reversed(found):
        prompt = prompt[: match.start()] + put + prompt[match.end() :]
    return prompt


BESIDE_LATIN: Final = r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])"
"""Between Chinese characters and what is none."""
