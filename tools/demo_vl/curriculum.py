"""Talks about a picture or two: what is shown, what is asked and what is answered, written by chance."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from demo.words import Language
from demo_vl.drawing import Picture
from demo_vl.questions import phrased, questions
from demo_vl.scenes import Kind, Split, draw_pictures

SHARES: Final[Mapping[Kind, float]] = {
    "one": 0.22, "pair": 0.24, "several": 0.24, "number": 0.18, "two": 0.12,
}  # fmt: skip
"""How often training draws each kind of picture."""
CHINESE_SHARE: Final = 0.3
PRECEDENCE: Final[Mapping[str, float]] = {
    "background": 0.2, "colour of the one": 0.4, "colour of the number": 0.2, "shape": 0.4, "number": 2.0,
    "position": 2.0, "relation": 2.0, "side": 1.5, "presence": 1.5, "count of some": 1.5, "shape of a colour": 2.0,
}  # fmt: skip
"""How often a form comes before another one, and so has a place in a row: less where it is learned early."""
BLIND_SHARE: Final = 0.02
"""Of talks, those whose question comes without a picture."""
NO_PICTURE: Final[Mapping[Language, str]] = {"en": "I see no picture.", "zh": "我没有看到图片。"}
READ_BACK: Final = 0.15
"""Of answers, those that are written as a runtime reads them back."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question in words, and its answer: to be learned, or `read_back` in other pieces than a model writes it in."""

    prompt: str
    answer: str
    read_back: bool = False


@dataclass(frozen=True, slots=True)
class Talk:
    """Questions about pictures, the first of which comes with them, before or after its text."""

    pictures: tuple[Picture, ...]
    pictures_first: bool
    turns: tuple[Turn, ...]


def draw_talk(rng: random.Random, kind: Kind, language: Language, wide: float, split: Split = "train") -> Talk:
    """Everything that training asks about pictures of a kind, drawn for a canvas of which width / height is `wide`."""
    pictures = draw_pictures(rng, kind, split, wide)
    asked = questions(rng, pictures, language)
    asked.sort(key=lambda each: rng.random() ** (1 / PRECEDENCE.get(each.form, 1.0)), reverse=True)
    turns = [Turn(phrased(rng, each), each.answer, rng.random() < READ_BACK) for each in asked]
    return Talk(pictures, rng.random() < 0.5, tuple(turns))


def draw_any(rng: random.Random, wide: float) -> Talk:
    """A talk of training."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    language: Language = "zh" if rng.random() < CHINESE_SHARE else "en"
    talk = draw_talk(rng, kind, language, wide)
    if rng.random() < BLIND_SHARE:
        return Talk((), True, (Turn(talk.turns[0].prompt, NO_PICTURE[language]),))
    return talk
