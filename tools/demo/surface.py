"""Ways of writing a question: what people do to it that changes nothing about its answer.

A way is a small function from a question's text to another; where there is nothing for it to change it gives the text
back. Ways of one kind exclude each other; ways of different kinds add up, in the order of `KINDS`. Some are held out:
training never writes in them, so an examination can ask how the model takes what it has never seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from demo import rewriting as by
from demo.curriculum import Item, reworded
from demo.manners import MANNERS, NEW_MANNERS, THANKS
from demo.words import split_words

Write = Callable[[random.Random, Item], str]

KINDS: Final[Mapping[str, float]] = {
    "numbers": 0.25,
    "date": 0.6,
    "units": 0.6,
    "list": 0.4,
    "sign": 0.6,
    "quotes": 0.25,
    "contraction": 0.4,
    "manners": 0.3,
    "thanks": 0.1,
    "end": 0.4,
    "case": 0.35,
    "width": 0.5,
    "blanks": 0.2,
}
"""Kinds of ways in the order in which they are applied, and how often training writes in one of each."""
AS_IT_IS: Final = 0.2
"""Of training's questions, those that are left as they are phrased."""
MOST_TRIES: Final = 1000


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    kind: str
    write: Write
    held_out: bool = False


def written(rng: random.Random, item: Item) -> Item:
    """An item as training asks it: as it is phrased, or in trained ways of any kinds."""
    return item if rng.random() < AS_IT_IS else _apply(rng, item, None)


def written_in_known_ways(rng: random.Random, item: Item) -> Item:
    """An item in at least one way, all of them trained."""
    return next(found for found in (_apply(rng, item, None) for _ in range(MOST_TRIES)) if found.ways)


def written_in_new_ways(rng: random.Random, item: Item) -> Item:
    """An item in one way that training never writes in, and beside it in whatever trained ones chance adds."""
    for _ in range(MOST_TRIES):
        kind = rng.choice(list(KINDS))
        if ways := [way for way in WAYS if way.kind == kind and way.held_out]:
            way = rng.choice(ways)
            found = _apply(rng, item, way)
            if way.name in found.ways:
                return found
    raise AssertionError(f"no way of writing for {item}")


def _apply(rng: random.Random, item: Item, forced: Way | None) -> Item:
    for kind, often in KINDS.items():
        if forced is not None and kind == forced.kind:
            way = forced
        elif rng.random() < often:
            way = rng.choice(TRAINED[kind])
        else:
            continue
        prompt = way.write(rng, item)
        if prompt != item.prompt:
            item = reworded(item, prompt, way.name)
    return item


QUOTES: Final = split_words('"~" "~" "~" “~” “~” 「~」 《~》 【~】 （~） (~) [~] <~> *~* `~`')
"""What goes around a word, in place of `~`; the usual more often."""
NEW_QUOTES: Final = split_words("'~' ‘~’ 『~』 «~» **~** {~}")
BIG_UNITS: Final = {name: short.upper() for name, short in by.SHORT_UNITS.items()}

WAYS: Final = (
    Way("numbers in words", "numbers", by.in_words),
    Way("full-width digits", "numbers", by.full_width_digits),
    Way("one number in words", "numbers", partial(by.in_words, single=True), held_out=True),
    Way("numbers in words without hyphens", "numbers", partial(by.in_words, hyphen=" "), held_out=True),
    Way("March 5th", "date", partial(by.english_date, style="{month} {nth}")),
    Way("5 March", "date", partial(by.english_date, style="{day} {month}")),
    Way("the 5th of March", "date", partial(by.english_date, style="the {nth} of {month}")),
    Way("Mar 5", "date", partial(by.english_date, style="{short} {day}")),
    Way("5th March", "date", partial(by.english_date, style="{nth} {month}"), held_out=True),
    Way("March the 5th", "date", partial(by.english_date, style="{month} the {nth}"), held_out=True),
    Way("5 Mar", "date", partial(by.english_date, style="{day} {short}"), held_out=True),
    Way("3月5号", "date", partial(by.chinese_date, words=False, day="号")),
    Way("三月五日", "date", partial(by.chinese_date, words=True, day="日")),
    Way("三月五号", "date", partial(by.chinese_date, words=True, day="号"), held_out=True),
    Way("5kg", "units", partial(by.units, names=by.SHORT_UNITS, blank=False)),
    Way("5 kg", "units", partial(by.units, names=by.SHORT_UNITS, blank=True)),
    Way("kilometres, 千克", "units", partial(by.units, names=by.OTHER_UNITS, blank=True)),
    Way("$5", "units", by.dollars),
    Way("5 kg, and grams", "units", partial(by.units, names=by.SHORT_UNITS, blank=True, single=True), held_out=True),
    Way("5 KG", "units", partial(by.units, names=BIG_UNITS, blank=True), held_out=True),
    Way("commas without blanks", "list", partial(by.listed, comma=",")),
    Way("commas with blanks", "list", partial(by.listed, comma=", ")),
    Way("blanks for commas", "list", partial(by.listed, comma=" ")),
    Way("semicolons", "list", partial(by.listed, comma="; ")),
    Way("full-width commas", "list", partial(by.listed, comma="，", language="zh")),
    Way("lines", "list", partial(by.listed, comma="\n")),
    Way("a last and", "list", partial(by.listed, comma=", ", last=" and ")),
    Way("a last 和", "list", partial(by.listed, comma="、", last="和")),
    Way("blanks around commas", "list", partial(by.listed, comma=" , "), held_out=True),
    Way("slashes", "list", partial(by.listed, comma="/"), held_out=True),
    Way("commas and a last and", "list", partial(by.listed, comma=", ", last=", and "), held_out=True),
    Way("27+56", "sign", partial(by.signs, pattern=by.SIGN, put=r"\1")),
    Way("27＋56", "sign", by.full_width_signs),
    Way("27 − 56", "sign", partial(by.signs, pattern=r"(?<=\d )-", put="−")),
    Way("27 + 56 =", "sign", partial(by.equals, end="=")),
    Way("27 & 56", "sign", partial(by.signs, pattern=r"(?<=\d )and|(?<=\d)[和与]", put="&")),
    Way("27 +56", "sign", partial(by.signs, pattern=r"(?<=\d )([-+]) ", put=r"\1"), held_out=True),
    Way("27+ 56", "sign", partial(by.signs, pattern=r" ([-+] )(?=\d)", put=r"\1"), held_out=True),
    Way("27 – 56", "sign", partial(by.signs, pattern=r"(?<=\d )-", put="–"), held_out=True),
    Way("27 plus 56 = ?", "sign", partial(by.equals, end="=?"), held_out=True),
    Way("marks around a word", "quotes", partial(by.quoted, pairs=QUOTES)),
    Way("new marks around a word", "quotes", partial(by.quoted, pairs=NEW_QUOTES), held_out=True),
    Way("what's", "contraction", partial(by.contracted, end="'s")),
    Way("whats", "contraction", partial(by.contracted, end="s")),
    Way("what’s", "contraction", partial(by.contracted, end="’s"), held_out=True),
    Way("manners", "manners", partial(by.mannerly, templates=MANNERS)),
    Way("new manners", "manners", partial(by.mannerly, templates=NEW_MANNERS), held_out=True),
    Way("thanks", "thanks", partial(by.mannerly, templates=THANKS)),
    Way("no mark", "end", partial(by.ended, ends=("",))),
    Way("another mark", "end", partial(by.ended, ends=("？", " ?", "??", "!", ".", "?"))),
    Way("new marks", "end", partial(by.ended, ends=("???", "?!", "!?", "...", "…", "!!")), held_out=True),
    Way("a small letter", "case", by.small_letter),
    Way("small letters", "case", by.lower),
    Way("CAPITALS", "case", by.upper),
    Way("one WORD", "case", partial(by.one_word, change=str.upper)),
    Way("one Word", "case", partial(by.one_word, change=str.capitalize)),
    Way("Every Word", "case", by.title, held_out=True),
    Way("cAPS LOCK", "case", by.caps_lock, held_out=True),
    Way("full-width marks", "width", partial(by.wide_marks, language="zh")),
    Way("half-width marks", "width", by.narrow_marks),
    Way("full-width marks in English", "width", partial(by.wide_marks, language="en"), held_out=True),
    Way("a blank twice", "blanks", partial(by.blanks, pattern=" ", put="  ", at_once=1)),
    Way("a blank at the end", "blanks", partial(by.blanks, pattern=r"\Z", put=" ")),
    Way("a line at the end", "blanks", partial(by.blanks, pattern=r"\Z", put="\n")),
    Way("blanks beside Chinese", "blanks", partial(by.blanks, pattern=by.BESIDE_LATIN, put=" ")),
    Way("no blank after a mark", "blanks", partial(by.blanks, pattern=r"(?<=[,:]) ", put="")),
    Way("27plus56", "blanks", partial(by.blanks, pattern=r"(?<=\d) | (?=\d)", put="")),
    Way("a blank in front", "blanks", partial(by.blanks, pattern=r"\A", put=" "), held_out=True),
    Way("a line in front", "blanks", partial(by.blanks, pattern=r"\A", put="\n"), held_out=True),
    Way("every blank twice", "blanks", partial(by.blanks, pattern=" ", put="  "), held_out=True),
    Way(
        "a full-width blank",
        "blanks",
        partial(by.blanks, pattern=f" |{by.BESIDE_LATIN}", put="　", at_once=1),
        held_out=True,
    ),
)
TRAINED: Final[Mapping[str, Sequence[Way]]] = {
    kind: [way for way in WAYS if way.kind == kind and not way.held_out] for kind in KINDS
}
