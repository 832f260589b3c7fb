"""Pictures to try demo-vl on, none of which its training saw, with questions and the right answers.

python -m demo_vl.samples tests/data/pictures   (in tools/) draws them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demo_vl.drawing import Picture, Thing, draw

Size = tuple[int, int]
Answers = Mapping[str, str]

SAMPLES: Final[Mapping[str, tuple[Picture, Size, Answers]]] = {
    "circle": (
        Picture((Thing("circle", "red", 0.28, 0.3, 0.2),), "white"),
        (240, 240),
        {
            "What color is the circle?": "It is red.",
            "What shape is it?": "A circle.",
            "Where is it?": "At the top left.",
            "它是什么颜色?": "红色。",
        },
    ),
    "star-and-diamond": (
        Picture((Thing("star", "yellow", 0.25, 0.4, 0.16), Thing("diamond", "blue", 0.75, 0.42, 0.16)), "white"),
        (240, 240),
        {
            "What is on the left?": "The yellow star.",
            "What do you see?": "A yellow star and a blue diamond.",
            "左边是什么?": "黄色星星。",
        },
    ),
    "squares": (
        Picture(
            tuple(Thing("square", "green", x, y, 0.12) for x, y in ((0.8, 0.5), (0.2, 0.8), (0.8, 0.82), (0.5, 0.8))),
            "white",
        ),
        (240, 240),
        {
            "How many squares are there?": "There are 4.",
            "Is there a circle?": "No.",
            "What color is the background?": "It is white.",
            "有几个正方形?": "有4个。",
        },
    ),
    "number": (
        Picture((Thing("257", "black", 0.5, 0.5, 0.32),), "yellow"),
        (240, 160),
        {"What number is it?": "257", "这是什么数字?": "257"},
    ),
}
"""By name: the picture, its width and height, and the right answer to each question."""


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (picture, size, _) in SAMPLES.items():
        draw(picture, *size, random.Random(name))[0].save(folder / f"{name}.png", optimize=True)
    answers = {f"{name}.png": answers for name, (_, _, answers) in SAMPLES.items()}
    (folder / "answers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
