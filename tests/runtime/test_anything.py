"""Whatever comes, in whatever order: the engine's books are right after each step, and every answer is what it is.

`fuzz/targets/engine.py` has many more of these lives.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.life import Life, little_is_copied


@pytest.mark.parametrize("seed", range(25))
def test_a_life(seed: int, tmp_path: Path) -> None:
    with little_is_copied():
        Life(random.Random(seed), tmp_path).live()
