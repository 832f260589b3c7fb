"""The recipe of a training, and the loop that follows it: steps, a log, and saving on the way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final, Literal, Protocol

import torch
from torch import nn

from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt.writing import write_atomic

WARMUP: Final = 50
"""Steps over which the learning rate rises."""
HALVED_AFTER: Final = 600
"""The step at which the learning rate is half of the highest; it goes on as the inverse root of the step."""
COOL: Final = 0.4
"""The share of the steps, at the end, over which the learning rate falls to zero as well."""
MTP_FROM: Final = 0.6
"""The MTP layer learns over the rest of the steps: it has a trained model to look at, and that is enough."""


Dtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the result, the machine's rounding aside."""

    seed: int = 0
    steps: int = 12000
    rows: int = 24
    balance_rate: float = 2e-3
    orthogonal_weight: float = 0.0
    z_weight: float = 1e-4
    dtype: Dtype = "bfloat16"
    """Of what matrices multiply; weights, sums and optimizers are float32."""
    changes: Mapping[str, object] | None = None
    """Departures from the demo's config."""

    def __post_init__(self) -> None:
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise OptionError("a training has steps, and rows in its batches", where=f"--{name}", expected=">= 1",
                                  found=getattr(self, name))  # fmt: skip

    @property
    def cooling_from(self) -> float:
        """The step up to which a training is the same however many steps it is to have."""
        return min(1 - COOL, MTP_FROM) * self.steps

    def rate(self, step: int, begun: int = 0) -> float:
        """The learning rate of a step, as a share of the highest, of what began to learn at a step."""
        taken = max(0, step - begun)
        return min((taken + 1) / WARMUP, 1 / math.sqrt(1 + 3 * taken / HALVED_AFTER)) * self.left(step)

    def left(self, step: int) -> float:
        """What the end leaves of a rate."""
        return max(0.0, min(1.0, (self.steps - step) / (COOL * self.steps)))


class Training(Protocol):
    """What takes the steps of a recipe."""

    recipe: Recipe
    device: str
    step_number: int
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def step(self) -> dict[str, Any]:
        """Take one step, and say how it went."""

    def examine(self) -> dict[str, dict[str, float]]:
        """The share of right answers by task, in each examination."""

    def publish(self, out: Path) -> None:
        """Write what was learned so far, for people and runtimes."""

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from, in the same bits."""
        return {
            "recipe": asdict(self.recipe),
            "step": self.step_number,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.step_number = state["step"]
        self.model.load_state_dict(state["model"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)


def make_folder(folder: Path, device: str) -> None:
    """OptionError where a training has no place: no folder, or no device."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.empty(0, device=device)
    except OSError as error:
        raise OptionError(
            "no folder to write into", where=str(folder.parent), found=error.strerror, hint="Name another"
        ) from error
    except (RuntimeError, AssertionError) as error:  # the latter is what PyTorch says without CUDA
        raise OptionError(
            "PyTorch has no such device here", where="--device", found=device, hint="Try cpu, or cuda with a GPU"
        ) from error


def follow(training: Training, out: Path, minutes: float | None, save_every: int) -> bool:
    """Take steps until the recipe's end or the time's; whether it reached the former.

    It goes on from `out`/training.pt where there is one, and keeps log.jsonl beside it. Raises OptionError when that is
    of another recipe, and FileFormatError when it cannot be read.
    """
    if save_every < 1:
        raise OptionError("saving comes every so many steps", where="--save-every", expected=">= 1", found=save_every)
    state, log = out / "training.pt", out / "log.jsonl"
    if state.exists():
        training.restore(_saved(state, training.recipe, training.device))
    if log.exists():  # what came after the state was saved comes again
        lines = log.read_text().splitlines()[: training.step_number]
        log.write_text("".join(f"{line}\n" for line in lines))
    began = time.monotonic()

    def save() -> None:
        with write_atomic(state) as file:
            torch.save(training.state(), file)
        training.publish(out)

    while training.step_number < training.recipe.steps:
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            save()
            return False
        started = time.monotonic()
        said = training.step()
        said["seconds"] = round(time.monotonic() - started, 3)
        if training.step_number % save_every == 0:
            exams = training.examine()
            said |= exams
            shown = "".join(f", {name} {mean(shares.values()):.1%}" for name, shares in exams.items())
            loss = next(value for name, value in said.items() if name.endswith("loss"))
            print(f"step {training.step_number}: loss {loss:.3f}{shown}", *exams.values(), flush=True)
        with log.open("a") as file:
            file.write(json.dumps(said) + "\n")
        if training.step_number % save_every == 0:
            save()
    save()
    return True


def _saved(state: Path, recipe: Recipe, device: str) -> dict[str, Any]:
    hint = "Name another folder, or delete this file to begin anew"
    try:
        saved: dict[str, Any] = torch.load(state, map_location=device, weights_only=True)
        same = saved["recipe"] == asdict(recipe)
        given = asdict(recipe) | {"steps": saved["recipe"]["steps"]}
        if not same and given == saved["recipe"]:
            same = saved["step"] <= min(recipe.cooling_from, Recipe(**given).cooling_from)
    except Exception as error:  # whatever PyTorch meets in a file that is broken
        raise FileFormatError("no saved training", where=str(state), found=str(error), hint=hint) from error
    if not same:
        raise OptionError("a training by another recipe", where=str(state), expected=asdict(recipe),
                          found=saved["recipe"], hint=hint)  # fmt: skip
    return saved
