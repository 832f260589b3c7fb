"""Questions about pictures that training never saw, in phrasings that it knows and in one that it does not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from PIL import Image

from demo.curriculum import LANGUAGES
from demo.words import Language
from demo_vl.batches import sizes
from demo_vl.curriculum import SHARES, Talk, Turn
from demo_vl.drawing import draw
from demo_vl.questions import TASKS, phrased, questions
from demo_vl.scenes import draw_pictures

EXAMINED: Final = tuple(dict.fromkeys(TASKS.values()))


@dataclass(frozen=True, slots=True)
class Item:
    """A question about pictures of one size; `seed` decides how they are drawn."""

    task: str
    language: Language
    talk: Talk
    size: tuple[int, int]
    seed: str
    new_phrasing: str
    """The question's text in a phrasing that is held out."""

    @property
    def turn(self) -> Turn:
        return self.talk.turns[0]

    def images(self) -> list[Image.Image]:
        rng = random.Random(self.seed)
        return [draw(picture, *self.size, rng)[0] for picture in self.talk.pictures]


def held_out_items(task: str, count: int, seed: int = 0) -> list[Item]:
    """The first `count` questions of a task, alternately in English and Chinese, before and after their pictures."""
    assert task in TASKS.values()
    found: list[Item] = []
    rng = random.Random(f"{seed}/{task}")
    while len(found) < count:
        number = len(found)
        size = next(sizes(rng))
        kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
        pictures = draw_pictures(rng, kind, "held_out", size[0] / size[1])
        language = LANGUAGES[number % 2]
        asked = [each for each in questions(rng, pictures, language) if each.task == task]
        if asked:
            turn = Turn(phrased(rng, asked[0]), asked[0].answer)
            new = phrased(rng, asked[0], held_out=True)
            talk = Talk(pictures, number // 2 % 2 == 0, (turn,))
            found.append(Item(task, language, talk, size, f"{seed}/{task}/{number}", new))
    return found
