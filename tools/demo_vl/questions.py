"""What can be asked of pictures, in English and Chinese, and the answers that a person would expect."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from demo.words import Language
from demo_vl.drawing import COLOURS, SHAPES, Picture, Thing
from demo_vl.scenes import zone

CHINESE: Final[Mapping[str, str]] = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色", "purple": "紫色",
    "pink": "粉色", "brown": "棕色", "black": "黑色", "white": "白色", "gray": "灰色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星星", "heart": "爱心",
    "diamond": "菱形", "cross": "十字",
}  # fmt: skip
PLURALS: Final[Mapping[str, str]] = {shape: f"{shape}{'es' if shape == 'cross' else 's'}" for shape in SHAPES}

PHRASINGS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "colour": (
        ("What color is the {shape}?", "Which color does the {shape} have?", "What is the color of the {shape}?",
         "Tell me the color of the {shape}.", "Name the color of the {shape}."),
        ("{shape}是什么颜色?", "{shape}是什么颜色的?", "{shape}的颜色是什么?", "请问{shape}是什么颜色?",
         "告诉我{shape}的颜色。"),
    ),
    "colour of the one": (
        ("What color is it?", "What color is the shape?", "What color is this shape?", "Which color is it?",
         "Which color does it have?", "Tell me its color."),
        ("它是什么颜色?", "这个图形是什么颜色?", "是什么颜色的?", "图形是什么颜色的?", "请说出它的颜色。"),
    ),
    "colour of the number": (
        ("What color is the text?", "What color is it written in?", "What color is the number?",
         "Which color does the text have?"),
        ("文字是什么颜色?", "字是什么颜色的?", "数字是什么颜色?", "文字用的是什么颜色?"),
    ),
    "shape": (
        ("What shape is it?", "What shape is this?", "Which shape is it?", "Which shape do you see?",
         "What is the shape?", "Tell me what shape this is."),
        ("这是什么形状?", "是什么形状?", "这是什么图形?", "图里是什么形状?", "请说出它的形状。"),
    ),
    "shape of a colour": (
        ("What shape is {colour}?", "Which shape is {colour}?", "What is {colour}?", "What is the {colour} shape?",
         "Name the {colour} shape."),
        ("什么是{colour}的?", "哪个图形是{colour}的?", "{colour}的是什么形状?", "{colour}的图形是什么?"),
    ),
    "background": (
        ("What color is the background?", "What is the color of the background?",
         "Which color does the background have?", "What is the background color?", "On what color is it?"),
        ("背景是什么颜色?", "背景是什么颜色的?", "背景颜色是什么?", "请说出背景的颜色。"),
    ),
    "count": (
        ("How many shapes are there?", "How many shapes do you see?", "Count the shapes.", "How many shapes?",
         "How many shapes are in the picture?", "Tell me how many shapes there are."),
        ("有几个图形?", "图里有几个图形?", "一共有几个图形?", "图中有多少个图形?", "请数一数图形。"),
    ),
    "count of some": (
        ("How many {things} are there?", "How many {things} do you see?", "Count the {things}.",
         "How many {things}?", "How many {things} are in the picture?", "Tell me how many {things} there are."),
        ("有几个{things}?", "图里有几个{things}?", "一共有几个{things}?", "图中有多少个{things}?",
         "请数一数{things}。"),
    ),
    "position": (
        ("Where is the {shape}?", "Where is it?", "Where in the picture is the {shape}?", "Where is the shape?",
         "Tell me where the {shape} is."),
        ("{shape}在哪里?", "它在哪里?", "{shape}在图的哪里?", "请问{shape}的位置?"),
    ),
    "side": (
        ("What is {side}?", "What do you see {side}?", "Which shape is {side}?", "What is there {side}?",
         "Name what is {side}."),
        ("{side}是什么?", "{side}有什么?", "{side}是什么图形?", "请说出{side}的图形。"),
    ),
    "relation": (
        ("Is the {first} {relation} the {second}?", "Is the {first} {relation} the {second}, yes or no?",
         "Does the {first} lie {relation} the {second}?", "Would you say the {first} is {relation} the {second}?"),
        ("{first}在{second}的{relation}吗?", "{first}是在{second}的{relation}吗?",
         "请问{first}在{second}的{relation}吗?", "{first}位于{second}的{relation}吗?"),
    ),
    "presence": (
        ("Is there {thing}?", "Do you see {thing}?", "Is there {thing} in the picture?", "Can you see {thing}?",
         "Does the picture show {thing}?"),
        ("有{thing}吗?", "图里有{thing}吗?", "你看到{thing}了吗?", "图中有没有{thing}?"),
    ),
    "number": (
        ("What number is it?", "Which number is this?", "What number do you see?", "Read the number.",
         "What is the number?", "Tell me the number."),
        ("这是什么数字?", "数字是多少?", "图里的数字是多少?", "请读出数字。", "这个数是几?"),
    ),
    "same colour": (
        ("Do both show the same color?", "Are both the same color?", "Do both shapes have the same color?",
         "Is it the same color in both pictures?", "Are they the same color?", "Is the color the same in both?"),
        ("两张图的颜色一样吗?", "颜色一样吗?", "两个图形的颜色相同吗?", "请问两个颜色一样吗?"),
    ),
    "same shape": (
        ("Do both show the same shape?", "Are both the same shape?", "Is it the same shape in both pictures?",
         "Are they the same shape?", "Is the shape the same in both?"),
        ("两张图的形状一样吗?", "形状一样吗?", "两个图形的形状相同吗?", "请问两个形状一样吗?"),
    ),
    "describe": (
        ("What is this?", "What do you see?", "What is in the picture?", "Describe the picture.",
         "What does the picture show?", "Tell me what you see."),
        ("这是什么?", "你看到什么?", "图里有什么?", "描述这张图。", "请说说这张图。"),
    ),
}  # fmt: skip
"""Ways of asking, English and Chinese; of each list the last one is kept from training."""

TASKS: Final[Mapping[str, str]] = {
    "colour": "colour", "colour of the one": "colour", "colour of the number": "colour",
    "shape": "shape", "shape of a colour": "shape", "background": "background",
    "count": "count", "count of some": "count", "position": "position", "side": "relation", "relation": "relation",
    "presence": "presence", "number": "number",
    "same colour": "compare", "same shape": "compare", "describe": "describe",
}  # fmt: skip
"""The task that each form of question belongs to."""

SIDES: Final[Mapping[str, tuple[str, str, str]]] = {
    "left": ("on the left", "to the left of", "左边"),
    "right": ("on the right", "to the right of", "右边"),
    "above": ("at the top", "above", "上面"),
    "below": ("at the bottom", "below", "下面"),
}
"""Where a thing is in a picture, where it is of another one, and both in Chinese."""
ZONES: Final[Mapping[tuple[int, int], tuple[str, str]]] = {
    (-1, -1): ("At the top left.", "在左上角。"), (0, -1): ("At the top.", "在上面。"),
    (1, -1): ("At the top right.", "在右上角。"), (-1, 0): ("On the left.", "在左边。"),
    (0, 0): ("In the middle.", "在中间。"), (1, 0): ("On the right.", "在右边。"),
    (-1, 1): ("At the bottom left.", "在左下角。"), (0, 1): ("At the bottom.", "在下面。"),
    (1, 1): ("At the bottom right.", "在右下角。"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A form of PHRASINGS with its fields, and the answer; all in one language."""

    form: str
    language: Language
    fields: Mapping[str, str]
    answer: str

    @property
    def task(self) -> str:
        return TASKS[self.form]


def phrased(rng: random.Random, question: Question, *, held_out: bool = False) -> str:
    """The question in words, as people type them; held out are the last of its phrasings."""
    ways = PHRASINGS[question.form][question.language == "zh"]
    text = (ways[-1] if held_out else rng.choice(ways[:-1])).format(**question.fields)
    if rng.random() < 0.3:
        text = text.replace("color", "colour")
    if rng.random() < 0.12:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip("?.。")
    return text.replace("?", "？") if question.language == "zh" and rng.random() < 0.4 else text


def questions(rng: random.Random, pictures: Sequence[Picture], language: Language) -> list[Question]:
    """A question of each form that fits, in any order; of two pictures, those that compare them."""
    drafts = _of_two(pictures, language) if len(pictures) == 2 else _of_one(rng, pictures[0], language)
    found = [Question(form, language, fields, answer) for form, answer, fields in drafts]
    rng.shuffle(found)
    return found


Draft = tuple[str, str, dict[str, str]]
"""A form, the answer, and the form's fields."""


def _of_one(rng: random.Random, picture: Picture, language: Language) -> Iterator[Draft]:
    things = picture.things
    yield "background", _is(picture.background, language), {}
    if things[0].is_number:
        yield from _of_a_number(things[0], language)
        return
    if len(things) == 1:
        yield from _of_a_single(things[0], picture, language)
    else:
        yield "count", _there_are(len(things), language), {}
    if _are_a_pair(things):
        yield from _of_a_pair(rng, things, language)
    yield _count_of_some(rng, things, language)
    yield _colour(rng, things, language)
    yield _presence(rng, things, language)
    colours = Counter(thing.colour for thing in things)
    for thing in rng.sample(things, len(things)):
        if colours[thing.colour] == 1 and len(things) > 1:
            yield "shape of a colour", _a(thing.what, language), {"colour": _name(thing.colour, language)}
            break


def _of_a_number(thing: Thing, language: Language) -> Iterator[Draft]:
    yield "number", thing.what, {}
    yield "colour of the number", _is(thing.colour, language), {}
    yield "describe", f"数字{thing.what}。" if language == "zh" else f"The number {thing.what}.", {}


def _of_a_single(thing: Thing, picture: Picture, language: Language) -> Iterator[Draft]:
    zh = language == "zh"
    yield "colour of the one", _is(thing.colour, language), {}
    yield "shape", _a(thing.what, language), {}
    across, down = zone(thing.x), zone(thing.y)
    if across is not None and down is not None:
        yield "position", ZONES[across, down][zh], {"shape": _name(thing.what, language)}
    background, what = _name(picture.background, language), _combination(thing.what, thing.colour, language)
    yield "describe", f"{background}背景上的{what}。" if zh else _sentence(f"{_article(what)} on {background}"), {}


def _are_a_pair(things: Sequence[Thing]) -> bool:
    """Whether there are two that shape and colour tell apart, and clearly beside or above one another."""
    if len(things) != 2:
        return False
    a, b = things
    across, down = abs(a.x - b.x), abs(a.y - b.y)
    return a.what != b.what and a.colour != b.colour and abs(across - down) > 0.15


def _of_a_pair(rng: random.Random, things: Sequence[Thing], language: Language) -> Iterator[Draft]:
    """Where two things lie, which are of different shapes: beside each other, or one above the other."""
    zh = language == "zh"
    a, b = things
    beside = abs(a.x - b.x) > abs(a.y - b.y)
    first, second = sorted(things, key=lambda thing: thing.x if beside else thing.y)
    names = ("left", "right") if beside else ("above", "below")
    place = rng.randrange(2)
    there = _combination((first, second)[place].what, (first, second)[place].colour, language)
    yield "side", f"{there}。" if zh else f"The {there}.", {"side": SIDES[names[place]][2 if zh else 0]}
    asked = rng.choice((names[0], names[1]))
    one, other = rng.sample((first, second), 2)
    true = (one is first) == (asked == names[0])
    relation = SIDES[asked][2 if zh else 1]
    fields = {"first": _name(one.what, language), "relation": relation, "second": _name(other.what, language)}
    answer = ("是。" if true else "不是。") if zh else ("Yes." if true else "No.")
    yield "relation", answer, fields
    both = [_combination(thing.what, thing.colour, language) for thing in (first, second)]
    yield "describe", f"{both[0]}和{both[1]}。" if zh else _sentence(f"{_article(both[0])} and {_article(both[1])}"), {}


def _count_of_some(rng: random.Random, things: Sequence[Thing], language: Language) -> Draft:
    """How many there are of a shape, of a colour or of both, of which there are some, most often."""
    thing = rng.choice(things)
    shape = thing.what if rng.random() < 0.85 else rng.choice(list(SHAPES))
    colour = thing.colour if rng.random() < 0.85 else rng.choice(list(COLOURS))
    by = rng.choice(("shape", "shape", "colour", "both"))
    count = sum((by == "colour" or each.what == shape) and (by == "shape" or each.colour == colour) for each in things)
    match by, language:
        case "shape", "en":
            name = PLURALS[shape]
        case "colour", "en":
            name = f"{colour} shapes"
        case _, "en":
            name = f"{colour} {PLURALS[shape]}"
        case "shape", _:
            name = CHINESE[shape]
        case "colour", _:
            name = f"{CHINESE[colour]}图形"
        case _:
            name = _combination(shape, colour, language)
    return "count of some", _there_are(count, language), {"things": name}


def _colour(rng: random.Random, things: Sequence[Thing], language: Language) -> Draft:
    """The colour of a shape of which there is one; now and then, of one that is not there."""
    shapes = Counter(thing.what for thing in things)
    alone = [thing for thing in things if shapes[thing.what] == 1]
    if alone and rng.random() < 0.85:
        thing = rng.choice(alone)
        return "colour", _is(thing.colour, language), {"shape": _name(thing.what, language)}
    shape = _name(rng.choice([shape for shape in SHAPES if shape not in shapes]), language)
    return "colour", f"没有{shape}。" if language == "zh" else f"There is no {shape}.", {"shape": shape}


def _presence(rng: random.Random, things: Sequence[Thing], language: Language) -> Draft:
    thing = rng.choice(things)
    shape, colour = thing.what, thing.colour
    if rng.random() < 0.5:
        shape = rng.choice(list(SHAPES))
        if rng.random() < 0.5:
            colour = rng.choice([each.colour for each in things] + list(COLOURS))
    if rng.random() < 0.5:
        there, name = any(each.what == shape for each in things), _name(shape, language)
    else:
        there = any(each.what == shape and each.colour == colour for each in things)
        name = _combination(shape, colour, language)
    if language == "zh":
        return "presence", "有。" if there else "没有。", {"thing": name}
    return "presence", "Yes." if there else "No.", {"thing": _article(name)}


def _of_two(pictures: Sequence[Picture], language: Language) -> Iterator[Draft]:
    """What two pictures of one thing each have in common."""
    a, b = (picture.things[0] for picture in pictures)
    zh = language == "zh"
    if a.colour == b.colour:
        answer = f"一样,都是{CHINESE[a.colour]}。" if zh else f"Yes, both are {a.colour}."
    else:
        one, other = _name(a.colour, language), _name(b.colour, language)
        answer = f"不一样,{one}和{other}。" if zh else f"No, {one} and {other}."
    yield "same colour", answer, {}
    if a.what == b.what:
        answer = f"一样,都是{CHINESE[a.what]}。" if zh else f"Yes, both are {PLURALS[a.what]}."
    else:
        one, other = _name(a.what, language), _name(b.what, language)
        answer = f"不一样,{one}和{other}。" if zh else f"No, a {one} and a {other}."
    yield "same shape", answer, {}


def _name(word: str, language: Language) -> str:
    return CHINESE[word] if language == "zh" else word


def _combination(shape: str, colour: str, language: Language) -> str:
    return f"{CHINESE[colour]}{CHINESE[shape]}" if language == "zh" else f"{colour} {shape}"


def _is(colour: str, language: Language) -> str:
    return f"{CHINESE[colour]}。" if language == "zh" else f"It is {colour}."


def _a(shape: str, language: Language) -> str:
    return f"{CHINESE[shape]}。" if language == "zh" else _sentence(_article(shape))


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _there_are(count: int, language: Language) -> str:
    if language == "zh":
        return f"有{count}个。" if count else "没有。"
    return f"There {'is' if count == 1 else 'are'} {count or 'none'}."
