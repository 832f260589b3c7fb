"""Lives of an engine: requests of several tenants come, are cancelled, preempted, shown pictures, and fail midway."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from ernie_rt.runtime import rows, slots
from fuzz.target import Attempt, Target
from support.life import PAGE, Life


def start(folder: Path) -> Attempt:
    for module in (rows, slots):
        module.LEAST_ANYWHERE = PAGE  # type: ignore[misc]

    def attempt(rng: Random) -> None:
        life = Life(rng, folder / "life")
        try:
            life.live()
        finally:
            shutil.rmtree(folder / "life", ignore_errors=True)
        if life.refused:
            raise rng.choice(life.refused)

    return attempt


TARGET = Target("engine", ("ernie_rt.runtime.intake",), start, share=80)
