"""Train demo-vl: write its tokenizer, teach talks about pictures step by step, export what was learned."""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.optimizer import optimizers
from demo.train import Recipe, balance, z_loss
from demo_vl.batches import Batch, Encoder, Sights, assemble, prepared_size, show, training_batch, training_sights
from demo_vl.examination import EXAMINED, Item, held_out_items
from demo_vl.model import ErnieVL, demo_config, pools_of
from demo_vl.tokenizer import write_tokenizer
from ernie_rt.files import write_atomic

COLUMNS: Final = 112
ROWS: Final = 32
TOWER_STEPS: Final = 1000
"""The first steps teach the tower alone, with that many pictures in each:"""
SIGHTS: Final = 64
SAYS_WEIGHT: Final = 0.3
"""Of the loss of what the tower says of each patch, which teaches it to see from the first step on."""
EXAM_ITEMS: Final = 32
AHEAD: Final = 3
"""Batches that are drawn before they are needed."""


class Trainer:
    """A model in training. Two trainers that took the same steps hold the same numbers, bit for bit on one machine."""

    def __init__(self, recipe: Recipe, encoder: Encoder) -> None:
        self.recipe, self.encoder = recipe, encoder
        self.model = ErnieVL(demo_config(**(recipe.changes or {})), recipe.seed)
        self.dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32
        parts: list[list[tuple[str, nn.Parameter]]] = [[], []]
        for name, parameter in self.model.named_parameters():
            parts[name.startswith(("vision_model.", "says."))].append((name, parameter))
        words, tower = (optimizers(part, self.dtype) for part in parts)
        self.optimizers = [*words, *tower]
        self.groups = [
            (group, group["lr"], begun)
            for begun, part in ((TOWER_STEPS, words), (0, tower))
            for optimizer in part
            for group in optimizer.param_groups
        ]
        self.step_number = 0

    def step(self, drawn: Batch | Sights) -> dict[str, Any]:
        """Take one step on what is drawn for it, and say how it went."""
        for group, highest, begun in self.groups:
            group["lr"] = highest * self.recipe.rate(self.step_number, begun)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        said: dict[str, Any] = {"step": self.step_number}
        with torch.autocast("cpu", self.dtype, self.dtype != torch.float32):
            if isinstance(drawn, Sights):
                seen, loads = self.model.vision_model(drawn.patches, drawn.grid), []
                total = self._says_loss(seen, drawn, said)
            else:
                hidden, seen, routings = self.model(drawn)
                learned = drawn.learned[:, 1:]
                loss = F.cross_entropy(
                    self.model.logits(hidden[:, :-1][learned]).float(), drawn.targets[:, 1:][learned]
                )
                said["loss"] = loss.item()
                total = loss + SAYS_WEIGHT * self._says_loss(seen, drawn.sights, said)
                total = total + self.recipe.z_weight * z_loss(routings)
                loads = [routing.load for routing in routings]
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

    def _says_loss(self, seen: Tensor, sights: Sights, said: dict[str, Any]) -> Tensor:
        """Of what the tower says of each patch: where something lies, and where nothing does, alike."""
        some = sights.whats > 0
        logits = self.model.says["what"](seen).float()
        losses = [F.cross_entropy(logits[at], sights.whats[at]) for at in (some, ~some)]
        losses.append(F.cross_entropy(self.model.says["hue"](seen).float().flatten(0, 1), sights.hues.flatten()))
        said["what_loss"], said["hue_loss"] = losses[0].item(), losses[2].item()
        return torch.stack(losses).sum()

    def state(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "step": self.step_number,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step_number = state["step"]
        self.model.load_state_dict(state["model"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)

    def examine(self) -> dict[str, float]:
        """The share of held-out questions of each task whose answer greedy decoding would write."""
        return {task: mean(right(self.model, self.encoder, held_out_items(task, EXAM_ITEMS))) for task in EXAMINED}


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
        hidden, _, _ = model(batch)
        wrong = (model.logits(hidden[:, :-1]).argmax(-1) != batch.targets[:, 1:]) & batch.learned[:, 1:]
        found |= dict(zip(numbers, (~wrong.any(1)).tolist(), strict=True))
    return [found[number] for number in range(len(items))]


def drawn_ahead(folder: Path, recipe: Recipe, first: int) -> Iterator[Batch | Sights]:
    """The batches of the steps from `first` on, which another process draws while this one learns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _open_encoder, (folder, recipe)) as pool:
        waiting = collections.deque(pool.submit(_draw, step) for step in range(first, first + AHEAD))
        for step in itertools.count(first + AHEAD):
            batch = waiting.popleft().result()
            waiting.append(pool.submit(_draw, step))
            yield batch


def _open_encoder(folder: Path, recipe: Recipe) -> None:
    global _encoder, _recipe
    torch.set_num_threads(1)
    _encoder, _recipe = Encoder(folder, demo_config(**(recipe.changes or {}))), recipe


def _draw(step: int) -> Batch | Sights:
    if step < TOWER_STEPS:
        return training_sights(_recipe.seed, step, SIGHTS)
    return training_batch(_encoder, _recipe.seed, step, _recipe.rows, COLUMNS)


def train(out: Path, recipe: Recipe, minutes: float | None, save_every: int) -> None:
    folder, state, log = out / "demo_vl", out / "training.pt", out / "log.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not state.exists():
        write_tokenizer(folder)
    trainer = Trainer(recipe, Encoder(folder, demo_config(**(recipe.changes or {}))))
    if state.exists():
        trainer.restore(torch.load(state, weights_only=True))
    if log.exists():
        lines = log.read_text().splitlines()[: trainer.step_number]
        log.write_text("".join(f"{line}\n" for line in lines))
    began = time.monotonic()

    def save() -> None:
        with write_atomic(state) as file:
            torch.save(trainer.state(), file)

    batches = drawn_ahead(folder, recipe, trainer.step_number)
    while trainer.step_number < recipe.steps:
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            break
        started = time.monotonic()
        said = trainer.step(next(batches))
        said["seconds"] = round(time.monotonic() - started, 3)
        if trainer.step_number % save_every == 0 and trainer.step_number <= TOWER_STEPS:
            print(said, flush=True)
        elif trainer.step_number % save_every == 0:
            said["exam"] = trainer.examine()
            shown = " ".join(f"{task} {share:.2f}" for task, share in said["exam"].items())
            print(
                f"step {trainer.step_number}: loss {said['loss']:.3f} what {said['what_loss']:.3f} "
                f"exam {mean(said['exam'].values()):.1%}: {shown}",
                flush=True,
            )
        with log.open("a") as file:
            file.write(json.dumps(said) + "\n")
        if trainer.step_number % save_every == 0:
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    train(given.out, Recipe(steps=given.steps, rows=given.rows, dtype=given.dtype), given.minutes, given.save_every)


if __name__ == "__main__":
    main()
