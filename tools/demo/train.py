"""Train the demo model: write its tokenizer, teach the curriculum step by step, export what was learned."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.batches import COLUMNS, Encoder, pack, training_batch
from demo.curriculum import EXAMINED, Item, held_out_items
from demo.export import export
from demo.model import Ernie, Experts, Pool, Routing, demo_config, experts_of
from demo.optimizer import optimizers
from demo.plot import write_plot
from demo.recipe import MTP_FROM, Dtype, Recipe, Training, follow, make_folder
from demo.surface import written_in_new_ways
from demo.tokenizer import write_tokenizer
from ernie_rt.errors import ErnieRtError

FOLDER: Final = "demo"
"""Of the model, in a training's."""
PROMPT_WEIGHT: Final = 0.3
"""Of the loss of prompts, which nobody asks the model to write: what it learns to foresee it has understood."""
PROMPT_EVERY: Final = 3
"""Of every so many tokens of prompts, one is in the loss: the vocabulary is a third of the computation."""
MTP_WEIGHT: Final = 0.3
EXAM_ITEMS: Final = 32
"""Held-out items of each task in the examinations on the way."""


class Trainer(Training):
    """A model in training. Two trainers that took the same steps hold the same numbers, bit for bit on one machine."""

    def __init__(self, recipe: Recipe, encoder: Encoder, device: str = "cpu") -> None:
        self.recipe, self.encoder, self.device = recipe, encoder, device
        self.model = Ernie(demo_config(**(recipe.changes or {})), recipe.seed).to(device)
        self.optimizers = optimizers(self.model.named_parameters(), self.dtype)
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step_number = 0

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.recipe.dtype == "bfloat16" else torch.float32

    def step(self) -> dict[str, Any]:
        """Take one step, and say how it went."""
        with torch.autocast(torch.device(self.device).type, self.dtype, self.dtype != torch.float32):
            said, loads = self._learn()
        for experts, load in zip(experts_of(self.model), loads, strict=True):
            balance(experts, load, self.recipe.balance_rate * self.recipe.left(self.step_number))
        shares = torch.stack([load / load.float().mean() for load in loads])
        said["load_min"], said["load_max"] = shares.amin(1).tolist(), shares.amax(1).tolist()
        self.step_number += 1
        return said

    def _learn(self) -> tuple[dict[str, Any], list[Tensor]]:
        """Change the weights; what there is to say, and the load of each layer's experts."""
        recipe, number = self.recipe, self.step_number
        batch = training_batch(self.encoder, recipe.seed, number, recipe.rows).to(self.device)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * recipe.rate(number)
            optimizer.zero_grad(set_to_none=True)
        hidden, routings = self.model(batch.ids, batch.documents)
        loss = self._cross_entropy(hidden, batch.targets, batch.positions(1), 1)
        said: dict[str, Any] = {"step": number, "loss": loss.item(), "rate": recipe.rate(number)}
        asked = batch.positions(1, learned=False)[number % PROMPT_EVERY :: PROMPT_EVERY]
        prompts = self._cross_entropy(hidden, batch.targets, asked, 1)
        said["prompt_loss"] = prompts.item()
        total = loss + PROMPT_WEIGHT * prompts
        if number >= MTP_FROM * recipe.steps:
            further = self.model.further(hidden, batch.ids, batch.documents)
            further = self._cross_entropy(further, batch.targets, batch.positions(2), 2)
            said["mtp_loss"] = further.item()
            total = total + MTP_WEIGHT * further
        total = total + recipe.z_weight * z_loss(routings)
        if recipe.orthogonal_weight:
            total = total + recipe.orthogonal_weight * orthogonal_loss(experts_of(self.model))
        total.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        return said, [routing.load for routing in routings]

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, at: Tensor, ahead: int) -> Tensor:
        """Of the tokens `ahead` of flat positions, predicted from there."""
        row, column = at // targets.shape[1], at % targets.shape[1]
        return F.cross_entropy(self.model.logits(hidden[row, column]).float(), targets[row, column + ahead])

    @torch.no_grad()
    def examine(self) -> dict[str, dict[str, float]]:
        """The share of held-out items of each task whose answer greedy decoding would write: as they are phrased, and
        in ways of writing that are held out.

        It writes an answer exactly when, given the answer, each of its tokens is the likeliest.
        """
        rng = random.Random("ways")
        asked = {task: held_out_items(task, EXAM_ITEMS) for task in EXAMINED}
        return {
            "exam": {task: self._right(items) for task, items in asked.items()},
            "exam_new_ways": {
                task: self._right(written_in_new_ways(rng, item) for item in items) for task, items in asked.items()
            },
        }

    def publish(self, out: Path) -> None:
        export(self.model, out / FOLDER, dict(self.recipe.changes or {}))
        if (out / "log.jsonl").exists():
            write_plot(out / "log.jsonl", out / "plot.svg")

    def _right(self, items: Iterable[Item]) -> float:
        documents = [self.encoder.chat(item) for item in items]
        columns = max(len(document.ids) for document in documents)
        batch = pack(documents, len(documents), columns).to(self.device)
        with torch.autocast(torch.device(self.device).type, self.dtype, self.dtype != torch.float32):
            hidden, _ = self.model(batch.ids, batch.documents)
            at = batch.positions(1)
            row, column = at // columns, at % columns
            wrong = self.model.logits(hidden[row, column]).argmax(-1) != batch.targets[row, column + 1]
        failed = set(zip(row[wrong].tolist(), batch.documents[row, column][wrong].tolist(), strict=True))
        return 1 - len(failed) / len(documents)


def balance(experts: Pool, load: Tensor, rate: float) -> None:
    """Move the correction bias: up where an expert got less than its share, down where it got more.

    Auxiliary-loss-free balancing (Wang et al., 2024), as ERNIE 4.5 was trained; the bias chooses and never weighs.
    """
    share = load.float()
    bias = experts.correction_bias
    bias.add_(torch.sign(share.mean() - share), alpha=rate)
    bias.sub_(bias.mean())


def z_loss(routings: list[Routing]) -> Tensor:
    """Keeps router logits small (Zoph et al., 2022)."""
    return torch.stack([routing.logits.logsumexp(-1).square().mean() for routing in routings]).mean()


def orthogonal_loss(layers: list[Experts]) -> Tensor:
    """Pulls the rows of each router apart (ERNIE 4.5's technical report): squared cosines between experts."""
    losses = []
    for experts in layers:
        rows = F.normalize(experts.gate.weight, dim=-1)
        losses.append((rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean())
    return torch.stack(losses).mean()


def train(out: Path, recipe: Recipe, device: str, minutes: float | None, save_every: int) -> bool:
    """Train until the recipe's end or the time's; whether it reached the former.

    `out` gets the model's folder `demo`, and beside it training.pt (from which the same call goes on), log.jsonl and
    plot.svg. Raises as `make_folder` and `follow` do.
    """
    folder = out / FOLDER
    make_folder(folder, device)
    if not (out / "training.pt").exists():
        write_tokenizer(folder)
    trainer = Trainer(recipe, Encoder(folder, demo_config(**(recipe.changes or {}))), device)
    return follow(trainer, out, minutes, save_every)


def main() -> None:
    usual = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where to write; a training that was stopped there goes on")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--rows", type=int, default=usual.rows, help=f"rows of {COLUMNS} tokens in a batch")
    parser.add_argument("--balance-rate", type=float, default=usual.balance_rate)
    parser.add_argument("--orthogonal-weight", type=float, default=usual.orthogonal_weight)
    parser.add_argument("--z-weight", type=float, default=usual.z_weight)
    parser.add_argument("--dtype", default=usual.dtype, choices=get_args(Dtype), help="of what matrices multiply")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on from there")
    parser.add_argument("--save-every", type=int, default=100, help="steps between saving and examining")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        recipe = Recipe(
            seed=given.seed,
            steps=given.steps,
            rows=given.rows,
            balance_rate=given.balance_rate,
            orthogonal_weight=given.orthogonal_weight,
            z_weight=given.z_weight,
            dtype=given.dtype,
        )
        finished = train(given.out, recipe, given.device, given.minutes, given.save_every)
    except ErnieRtError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{given.out / FOLDER}: {'trained' if finished else 'stopped on the way; the same command goes on'}")


if __name__ == "__main__":
    main()
