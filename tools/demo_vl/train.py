"""Train demo-vl: write its tokenizer, teach talks about pictures step by step, export what was learned."""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar, Final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.optimizer import optimizers
from demo.recipe import Dtype, Recipe, Training, follow, make_folder
from demo.train import balance, z_loss
from demo_vl.batches import Batch, Encoder, Sights, assemble, prepared_size, show, training_batch, training_sights
from demo_vl.examination import EXAMINED, Item, held_out_items
from demo_vl.export import export
from demo_vl.model import ErnieVL, demo_config, pools_of
from demo_vl.tokenizer import write_tokenizer
from ernie_rt.errors import ErnieRtError

FOLDER: Final = "demo-vl"
"""Of the model, in a training's."""
STEPS: Final = 8000
COLUMNS: Final = 80
ROWS: Final = 32
TOWER_STEPS: Final = 1250
BEGUN: Final = {"layers": TOWER_STEPS}
"""The step at which the decoder begins to learn: before, the tower learns alone, with that many pictures in a step:"""
SIGHTS: Final = 64
EYES_UNTIL: Final = 3200
"""The step from which on tower and resampler stay as they are: they see well enough, and a step then takes half."""
SAYS_WEIGHT: Final = 0.3
"""Of the loss of what the tower says of each patch, which teaches it to see from the first step on."""
EXAM_ITEMS: Final = 32
AHEAD: Final = 3
"""Batches that are drawn before they are needed."""


class Trainer(Training):
    """A model in training. Two trainers that took the same steps hold the same numbers, bit for bit on one machine."""

    device = "cpu"

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.encoder = Encoder(folder, demo_config(**(recipe.changes or {})))
        self.model = ErnieVL(demo_config(**(recipe.changes or {})), recipe.seed)
        self.dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32
        self.optimizers: list[torch.optim.Optimizer] = []
        self.rates: list[tuple[int, list[float]]] = []
        parts: dict[int, list[tuple[str, nn.Parameter]]] = collections.defaultdict(list)
        for name, parameter in self.model.named_parameters():
            parts[BEGUN.get(name.partition(".")[0], 0)].append((name, parameter))
        for begun, part in sorted(parts.items()):
            made = optimizers(part, self.dtype)
            self.optimizers += made
            self.rates += [(begun, [group["lr"] for group in each.param_groups]) for each in made]
        self.whats, self.hues = self.encoder.names()
        self.step_number = 0
        self.drawn: Iterator[Batch | Sights] | None = None

    def step(self) -> dict[str, Any]:
        """Take one step, and say how it went."""
        if self.drawn is None:
            self.drawn = drawn_ahead(self.folder, self.recipe, self.step_number)
        return self.learn(next(self.drawn))

    def learn(self, drawn: Batch | Sights) -> dict[str, Any]:
        """Take the step that such pictures, and what is said about them, are drawn for."""
        for optimizer, (begun, rates) in zip(self.optimizers, self.rates, strict=True):
            for group, highest in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = highest * self.recipe.rate(self.step_number, begun)
            optimizer.zero_grad(set_to_none=True)
        said: dict[str, Any] = {"step": self.step_number}
        with torch.autocast("cpu", self.dtype, self.dtype != torch.float32):
            sights = drawn if isinstance(drawn, Sights) else drawn.sights
            learns_to_see = self.step_number < EYES_UNTIL
            with torch.set_grad_enabled(learns_to_see):
                seen, features = self.model.see(sights)
            losses: list[Tensor] = []
            loads: list[Tensor] = []
            if learns_to_see:
                names = self._names(sights) + self.encoder.sides(sights.grid)
                losses.append(SAYS_WEIGHT * self._says_loss(seen, features, sights, said))
                losses.append(SAYS_WEIGHT * self._names_loss(features, names))
            if isinstance(drawn, Batch):
                hidden, routings = self.model(drawn.ids, drawn.positions, features)
                learned = drawn.learned[:, 1:]
                logits = self.model.logits(hidden[:, :-1][learned])
                losses.append(F.cross_entropy(logits.float(), drawn.targets[:, 1:][learned]))
                said["loss"] = losses[-1].item()
                losses.append(self.recipe.z_weight * z_loss(routings))
                loads = [routing.load for routing in routings]
                if learns_to_see:
                    places = hidden[drawn.ids == self.model.vision.image_token_id].view(features.shape)
                    losses.append(SAYS_WEIGHT * self._names_loss(places, names))
            total = torch.stack(losses).sum()
        total.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        if loads:
            for pool, load in zip(pools_of(self.model), loads, strict=True):
                balance(pool, load, self.recipe.balance_rate * self.recipe.left(self.step_number))
            shares = torch.stack([load / load.float().mean() for load in loads])
            said["load_min"], said["load_max"] = shares.amin(1).tolist(), shares.amax(1).tolist()
        self.step_number += 1
        return said

    def _says_loss(self, seen: Tensor, features: Tensor, sights: Sights, said: dict[str, Any]) -> Tensor:
        """Of what tower and features say of each patch: where something lies, and where nothing does, alike."""
        some = sights.whats > 0
        tower = self.model.says["what"](seen).float()
        reader = self.model.reads(features).float().view(tower.shape)
        losses = [F.cross_entropy(logits[at], sights.whats[at]) for logits in (tower, reader) for at in (some, ~some)]
        losses.append(F.cross_entropy(self.model.says["hue"](seen).float().flatten(0, 1), sights.hues.flatten()))
        said["what_loss"], said["read_loss"], said["hue_loss"] = (losses[i].item() for i in (0, 2, 4))
        return torch.stack(losses).sum()

    def _names(self, sights: Sights) -> Tensor:
        """The words for what lies in each block, `[P, S/4, V]`: of things and their colours, or else of the ground."""
        pictures, patches = sights.whats.shape
        some = (sights.whats > 0).view(pictures, patches // 4, 4)
        counts = some | ~some.any(-1, keepdim=True)
        called = self.whats[sights.whats] + self.hues[sights.hues] * counts.view(pictures, patches, 1)
        names: Tensor = called.view(pictures, patches // 4, 4, -1).sum(2)
        return names

    def _names_loss(self, states: Tensor, names: Tensor) -> Tensor:
        """Of the words that the states of blocks are to foresee, `[P, S/4, H]`, as a word in their place would."""
        logits = self.model.logits(states).float().log_softmax(-1)
        return (-(names * logits).sum(-1) / names.sum(-1)).mean()

    def examine(self) -> dict[str, dict[str, float]]:
        """The share of held-out questions of each task whose answer greedy decoding would write."""
        asked = {task: held_out_items(task, EXAM_ITEMS) for task in EXAMINED}
        return {"exam": {task: mean(right(self.model, self.encoder, items)) for task, items in asked.items()}}

    def publish(self, out: Path) -> None:
        export(self.model, out / FOLDER, dict(self.recipe.changes or {}))


def drawn_for(encoder: Encoder, recipe: Recipe, step: int) -> Batch | Sights:
    """What a step takes in: it depends on nothing but its number, and what never changes."""
    if step < TOWER_STEPS:
        return training_sights(recipe.seed, step, SIGHTS)
    return training_batch(encoder, recipe.seed, step, recipe.rows, COLUMNS)


@torch.no_grad()
def right(model: ErnieVL, encoder: Encoder, items: Sequence[Item]) -> list[bool]:
    """Whether greedy decoding would write each answer: it does when, given the answer, each token is the likeliest."""
    found: dict[int, bool] = {}
    groups: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
    for number, item in enumerate(items):
        groups[prepared_size(item.size)].append(number)
    for size, numbers in groups.items():
        talks, shown = [], []
        for item in (items[number] for number in numbers):
            talks.append(item.talk)
            rng = random.Random(item.seed)
            shown += [show(picture, *item.size, rng, noise=False) for picture in item.talk.pictures]
        batch = assemble(encoder, talks, shown, size, 160)
        hidden, _ = model(batch.ids, batch.positions, model.see(batch.sights)[1])
        wrong = (model.logits(hidden[:, :-1]).argmax(-1) != batch.targets[:, 1:]) & batch.learned[:, 1:]
        found |= dict(zip(numbers, (~wrong.any(1)).tolist(), strict=True))
    return [found[number] for number in range(len(items))]


class Drawing:
    """What a process of its own draws, step by step."""

    encoder: ClassVar[Encoder]
    recipe: ClassVar[Recipe]

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe) -> None:
        torch.set_num_threads(1)
        cls.encoder, cls.recipe = Encoder(folder, demo_config(**(recipe.changes or {}))), recipe

    @classmethod
    def of(cls, step: int) -> Batch | Sights:
        return drawn_for(cls.encoder, cls.recipe, step)


def drawn_ahead(folder: Path, recipe: Recipe, first: int) -> Iterator[Batch | Sights]:
    """What the steps from `first` on take in, which another process draws while this one learns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, Drawing.begin, (folder, recipe)) as pool:
        waiting = collections.deque(pool.submit(Drawing.of, step) for step in range(first, first + AHEAD))
        for step in itertools.count(first + AHEAD):
            drawn = waiting.popleft().result()
            waiting.append(pool.submit(Drawing.of, step))
            yield drawn


def train(out: Path, recipe: Recipe, minutes: float | None, save_every: int) -> bool:
    """Train until the recipe's end or the time's; whether it reached the former.

    `out` gets the model's folder `demo-vl`, and beside it training.pt (from which the same call goes on) and log.jsonl.
    Raises as `make_folder` and `follow` do.
    """
    folder = out / FOLDER
    make_folder(folder, "cpu")
    if not (out / "training.pt").exists():
        write_tokenizer(folder)
    return follow(Trainer(recipe, folder), out, minutes, save_every)


def main() -> None:
    usual = Recipe(steps=STEPS, rows=ROWS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where to write; a training that was stopped there goes on")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--rows", type=int, default=usual.rows, help=f"talks of up to {COLUMNS} tokens in a batch")
    parser.add_argument("--dtype", default=usual.dtype, choices=get_args(Dtype), help="of what matrices multiply")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on from there")
    parser.add_argument("--save-every", type=int, default=100, help="steps between saving and examining")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        recipe = Recipe(seed=given.seed, steps=given.steps, rows=given.rows, dtype=given.dtype)
        finished = train(given.out, recipe, given.minutes, given.save_every)
    except ErnieRtError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{given.out / FOLDER}: {'trained' if finished else 'stopped on the way; the same command goes on'}")


if __name__ == "__main__":
    main()
