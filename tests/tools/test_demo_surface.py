"""Ways of writing: what each does, that none changes the answer, and that training never writes in held-out ones."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from pathlib import Path

import pytest

from demo.batches import COLUMNS, Encoder, draw_item, training_batch
from demo.curriculum import EXAMINED, LANGUAGES, Item, draw
from demo.manners import MANNERS, NEW_MANNERS, THANKS
from demo.model import demo_config
from demo.phrasings import PHRASINGS
from demo.surface import (
    AS_IT_IS,
    KINDS,
    TRAINED,
    WAYS,
    written,
    written_in_known_ways,
    written_in_new_ways,
)
from demo.tasks import TASKS, UNKNOWN

HELD_OUT = {way.name for way in WAYS if way.held_out}
EXAMPLES = {
    "numbers in words": ("arithmetic", "add", "What is 27 plus 56?", "What is twenty-seven plus fifty-six?"),
    "full-width digits": ("arithmetic", "add", "27加56等于多少?", "２７加５６等于多少?"),
    "numbers in words without hyphens": ("compare", "larger", "Is 27 or 8 larger?", "Is twenty seven or eight larger?"),
    "March 5th": ("dates", "date", "Write March 5, 2021 as numbers.", "Write March 5th, 2021 as numbers."),
    "5 March": ("dates", "date", "Write March 5, 2021 as numbers.", "Write 5 March 2021 as numbers."),
    "the 5th of March": ("dates", "after", "What day comes after March 22?", "What day comes after the 22nd of March?"),
    "Mar 5": ("dates", "after", "What day comes after March 5?", "What day comes after Mar 5?"),
    "5th March": ("dates", "after", "What day comes after March 11?", "What day comes after 11th March?"),
    "March the 5th": ("dates", "after", "What day comes after March 3?", "What day comes after March the 3rd?"),
    "5 Mar": ("dates", "after", "What day comes after May 5?", "What day comes after 5 May?"),
    "3月5号": ("dates", "date", "把2021年3月5日写成数字。", "把2021年3月5号写成数字。"),
    "三月五日": ("dates", "date", "把2021年3月15日写成数字。", "把二零二一年三月十五日写成数字。"),
    "三月五号": ("dates", "after", "3月21日的后一天是几月几日?", "三月二十一号的后一天是几月几日?"),
    "5kg": ("units", "units", "How many grams are in 5 kilograms?", "How many g are in 5kg?"),
    "5 kg": ("units", "units", "5公斤等于多少克?", "5 kg等于多少g?"),
    "kilometres, 千克": ("units", "units", "Convert 7 kilometers to meters.", "Convert 7 kilometres to metres."),
    "$5": ("units", "units", "How many cents are in 5 dollars?", "How many cents are in $5?"),
    "5 KG": ("units", "units", "Convert 7 kilometers to meters.", "Convert 7 KM to M."),
    "commas without blanks": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34,7,81"),
    "commas with blanks": ("sort", "ascending", "从小到大排序:34、7、81", "从小到大排序:34, 7, 81"),
    "blanks for commas": ("count", "count", "数一数这些词:猫、狗", "数一数这些词:猫 狗"),
    "semicolons": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34; 7; 81"),
    "full-width commas": ("count", "count", "数一数这些词:猫、狗", "数一数这些词:猫，狗"),
    "lines": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34\n7\n81"),
    "a last and": ("count", "count", "Count the words: cat, dog, cow", "Count the words: cat, dog and cow"),
    "a last 和": ("sort", "ascending", "从小到大排序:34、7、81", "从小到大排序:34、7和81"),
    "blanks around commas": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34 , 7 , 81"),
    "slashes": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34/7/81"),
    "commas and a last and": ("sort", "ascending", "Sort 34, 7, 81", "Sort 34, 7, and 81"),
    "27+56": ("arithmetic", "add", "27 + 56 = ?", "27+56=?"),
    "27＋56": ("arithmetic", "subtract", "56 - 27 = ?", "56－27＝?"),
    "27 − 56": ("arithmetic", "subtract", "56 - 27 = ?", "56 − 27 = ?"),
    "27 + 56 =": ("arithmetic", "add", "What is 27 plus 56?", "27 plus 56 ="),
    "27 & 56": ("arithmetic", "add", "Add 27 and 56.", "Add 27 & 56."),
    "27 +56": ("arithmetic", "add", "27 + 56 = ?", "27 +56 = ?"),
    "27+ 56": ("arithmetic", "subtract", "56 - 27", "56- 27"),
    "27 – 56": ("arithmetic", "subtract", "56 - 27 = ?", "56 – 27 = ?"),
    "27 plus 56 = ?": ("arithmetic", "add", "27加56等于多少?", "27加56=?"),
    "what's": ("unknown", "thing", "Where is my hat?", "Where's my hat?"),
    "whats": ("translate", "to_chinese", "What is cat in Chinese?", "Whats cat in Chinese?"),
    "what’s": ("translate", "to_chinese", "What is cat in Chinese?", "What’s cat in Chinese?"),
    "no mark": ("translate", "to_chinese", "What is cat in Chinese?", "What is cat in Chinese"),
    "a small letter": ("translate", "to_chinese", "What is cat in Chinese?", "what is cat in Chinese?"),
    "small letters": ("translate", "to_chinese", "What is cat in Chinese?", "what is cat in chinese?"),
    "CAPITALS": ("translate", "to_chinese", "What is cat in Chinese?", "WHAT IS CAT IN CHINESE?"),
    "Every Word": ("translate", "to_chinese", "What is cat in Chinese?", "What Is Cat In Chinese?"),
    "cAPS LOCK": ("translate", "to_chinese", "What is cat in Chinese?", "wHAT IS CAT IN cHINESE?"),
    "full-width marks": ("sort", "ascending", "从小到大排序:34、7?", "从小到大排序：34、7？"),
    "half-width marks": ("sort", "ascending", "把34、7从小到大排序。", "把34,7从小到大排序."),
    "full-width marks in English": ("sort", "ascending", "Sort: 34, 7", "Sort：34，7"),
    "a blank at the end": ("sort", "ascending", "Sort: 34, 7", "Sort: 34, 7 "),
    "a line at the end": ("sort", "ascending", "Sort: 34, 7", "Sort: 34, 7\n"),
    "blanks beside Chinese": ("translate", "to_chinese", "cat用中文怎么说?", "cat 用中文怎么说?"),
    "no blank after a mark": ("sort", "ascending", "Sort: 34, 7", "Sort:34,7"),
    "27plus56": ("arithmetic", "add", "27 plus 56", "27plus56"),
    "a blank in front": ("sort", "ascending", "Sort: 34, 7", " Sort: 34, 7"),
    "a line in front": ("sort", "ascending", "Sort: 34, 7", "\nSort: 34, 7"),
    "every blank twice": ("arithmetic", "add", "27 plus 56", "27  plus  56"),
    "a full-width blank": ("reverse", "reverse", "Reverse lemon.", "Reverse\u3000lemon."),
}  # fmt: skip
"""What a way makes of a text, where chance has no say."""
MONTH = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
ONES = "one|two|three|four|five|six|seven|eight|nine"
MARKS = {
    "numbers in words without hyphens": rf"(?i)({TENS}) ({ONES})\b",
    "5th March": rf"\d(st|nd|rd|th) ({MONTH}|May)",
    "March the 5th": rf"({MONTH}|May)[a-z]* the \d",
    "5 Mar": rf"\d ({MONTH})\b",
    "三月五号": r"[一二三四五六七八九十]号",
    "5 KG": r"\d ?(KG|KM|CM)\b(?=.*[a-z]|[^A-Z]*$)",
    "blanks around commas": r"\w , \w",
    "slashes": r"\w/\w+/\w",
    "commas and a last and": r"\w, and \w",
    "27 +56": r"\d [-+]\d",
    "27+ 56": r"\d[-+] \d",
    "27 – 56": "–",
    "new marks around a word": r"[‘『』«»{}]|\*\*|(?<![a-zA-Z])'",
    "what’s": "’s",
    "new marks": r"\?\?\?|\?!|!\?|\.\.\.|…|!!|[？！]{3}|？！|！[？！]",
    "cAPS LOCK": r"^[a-z][A-Z]{2}",
    "a blank in front": r"^ ",
    "a line in front": r"^\n",
    "a full-width blank": "\u3000",
}
"""What shows that a question is written in a held-out way. Of the others a single question shows none."""


def item_of(task: str, form: str, prompt: str) -> Item:
    language = "zh" if re.search(r"[\u4e00-\u9fff]", prompt) else "en"
    number = next((n for n, text in enumerate(PHRASINGS[form, language]) if text[:3] == prompt[:3]), 0)
    return Item(task, language, form, number, prompt, "", ())


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_way(name: str) -> None:
    (way,) = (way for way in WAYS if way.name == name)
    task, form, before, after = EXAMPLES[name]
    assert way.write(random.Random(0), item_of(task, form, before)) == after


def test_ways_of_chance() -> None:
    ways = {way.name: way for way in WAYS}
    assert len(ways) == len(WAYS) and {way.kind for way in WAYS} == KINDS.keys()
    item = item_of("arithmetic", "add", "What is 27 plus 56?")
    expected = {
        "one number in words": {"What is twenty-seven plus 56?", "What is 27 plus fifty-six?"},
        "one WORD": {"WHAT is 27 plus 56?", "What IS 27 plus 56?", "What is 27 PLUS 56?"},
        "a blank twice": {"What is 27 plus 56?"[:at] + " " + "What is 27 plus 56?"[at:] for at in (4, 7, 10, 15)},
        "another mark": {f"What is 27 plus 56{end}" for end in ("？", " ?", "??", "!", ".", "?")},
        "new marks": {f"What is 27 plus 56{end}" for end in ("???", "?!", "!?", "...", "…", "!!")},
    }
    for name, texts in expected.items():
        assert {ways[name].write(random.Random(seed), item) for seed in range(200)} == texts, name
    named = EXAMPLES.keys() | expected.keys()
    assert ways.keys() - named == {
        "5 kg, and grams", "marks around a word", "new marks around a word", "manners", "new manners", "thanks",
        "one Word",
    }  # fmt: skip


def test_manners() -> None:
    (way,) = (way for way in WAYS if way.name == "manners")
    asked = [item_of("arithmetic", "add", text) for text in ("What is 27 plus 56?", "Add 27 and 56.")]
    texts = {way.write(random.Random(seed), item) for item in asked for seed in range(900)}
    assert {
        "Please add 27 and 56.", "Can you add 27 and 56?", "Can you tell me what 27 plus 56 is?",
        "Hello! What is 27 plus 56?", "Hi, what is 27 plus 56?", "Do you know what is 27 plus 56?",
    } <= texts  # fmt: skip
    assert not any(text.startswith(("Please what", "Do you know add")) for text in texts)
    for known, new in ((set(MANNERS[each]) | set(THANKS[each]), set(NEW_MANNERS[each])) for each in LANGUAGES):
        assert known and new and not known & new
        assert all(sum(template.count(f"{{{place}}}") for place in "qlbcwx") == 1 for template in known | new)


def said(text: str) -> str:
    """A text without what most ways of writing change: in small letters, without marks and blanks."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


@pytest.mark.parametrize("kind", ["list", "quotes", "end", "case", "width", "blanks", "sign"])
def test_ways_that_change_no_word(kind: str) -> None:
    rng = random.Random(kind)
    changed = {way.name: 0 for way in WAYS if way.kind == kind}
    for number in range(1000):
        item = draw(rng, rng.choice(list(TASKS)), LANGUAGES[number % 2], "train")
        for way in (way for way in WAYS if way.name in changed):
            text = way.write(rng, item)
            changed[way.name] += text != item.prompt
            if "and" in way.name or "和" in way.name or "&" in way.name or way.name.startswith("27"):
                continue  # a word comes or goes
            assert said(text) == said(item.prompt), way
    assert min(changed.values()) > 5, changed


def test_answers_stay() -> None:
    rng = random.Random(7)
    for number in range(600):
        item = draw(rng, rng.choice(list(TASKS)), LANGUAGES[number % 2], "train")
        for found in (written(rng, item), written_in_known_ways(rng, item), written_in_new_ways(rng, item)):
            assert found.answer == item.answer or {found.answer, item.answer} == set(UNKNOWN.values())
            assert (found.task, found.form, found.phrasing, found.keys) == (
                item.task, item.form, item.phrasing, item.keys
            )  # fmt: skip


def test_known_and_new_ways() -> None:
    rng = random.Random(8)
    seen: set[str] = set()
    for task, language in itertools.product(EXAMINED, LANGUAGES):
        for _ in range(400 if task == "arithmetic" else 60):
            item = draw(rng, task, language, "held_out", rng.choice(("train", "held_out")))
            known, new = written_in_known_ways(rng, item), written_in_new_ways(rng, item)
            assert known.ways and (known.prompt != item.prompt or len(known.ways) > 1)
            assert not HELD_OUT & set(known.ways)
            assert new.prompt != item.prompt and len(HELD_OUT & set(new.ways)) == 1
            seen |= {*known.ways, *new.ways}
    assert seen == {way.name for way in WAYS}, "an examination asks in every way"


def test_training_never_writes_in_held_out_ways() -> None:
    """Read off the questions, whatever they say of themselves; an examination shows that it can be read off them."""
    rng = random.Random(9)
    taught = [draw_item(rng) for _ in range(6000)]
    assert not HELD_OUT & {name for item in taught for name in item.ways}
    untouched = sum(not item.ways for item in taught) / len(taught)
    assert AS_IT_IS < untouched < 0.45, "most questions are written in some way"
    for name, mark in MARKS.items():
        shown = [item.prompt for item in taught if item.task != "beyond" and re.search(mark, item.prompt)]
        shown = [text for text in shown if '{"' not in text]
        assert not shown, (name, shown[:3])
    english = [item.prompt for item in taught if item.language == "en"]
    assert not [text for text in english if re.search("[，：！；]", text)]
    assert not [text for text in english if len(re.findall("[A-Za-z]+", text)) > 3 and text.istitle()]
    examined = [
        written_in_new_ways(rng, draw(rng, task, language, "held_out", rng.choice(("train", "held_out"))))
        for task, language in itertools.product(EXAMINED, LANGUAGES)
        for _ in range(1000 if task == "arithmetic" else 200)
    ]
    for name, mark in MARKS.items():
        assert any(name in item.ways and re.search(mark, item.prompt) for item in examined), name


def test_documents_of_training_hold_no_held_out_way(tokenizer_files: Path) -> None:
    encoder = Encoder(tokenizer_files, demo_config())
    for step in range(5):
        batch = training_batch(encoder, 0, step, 24)
        for ids in batch.ids.tolist():
            text = encoder.tokenizer.decode(ids)
            assert not re.search("[‘’『』«»–…\u3000]|User:  ?\n|\\?\\?\\?|!!", text), text
    assert len(batch.ids[0]) == COLUMNS


def test_every_kind_has_trained_ways_and_most_have_held_out_ones() -> None:
    assert all(TRAINED.values())
    assert {way.kind for way in WAYS if way.held_out} == KINDS.keys() - {"thanks"}
