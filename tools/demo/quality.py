"""How good a trained model is: right answers, perplexity, balance of the experts, and what its MTP layer foresees.

Everything but the last is measured through ernie_rt, on any backend, in any dtype and storage. The MTP layer, which no
graph holds, drafts in PyTorch in float32, after whatever the backend answered.
"""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import ernie_rt
from demo.batches import COLUMNS, Document, Encoder, draw_document, draw_item
from demo.curriculum import EXAMINED, LANGUAGES, Item, draw, held_out_items, phrasing_is_held_out
from demo.export import load
from demo.surface import written_in_known_ways, written_in_new_ways
from demo.tasks import REFUSALS
from ernie_rt.modeling.config import ModelConfig

MAX_ANSWER: Final = 64
MAX_CONTEXT: Final = 1536
TURNS: Final = (10, 20)
"""Of a conversation, the turns whose questions are examined."""
TURNS_SHARE: Final = 3
"""One in so many questions is asked there as well."""
NEVER_KNOWN: Final = ("unknown", "beyond")
"""Tasks whose questions nobody could answer."""
STORIES: Final = 100
ROUTED_DOCUMENTS: Final = 200
BIGRAM_DOCUMENTS: Final = 4000
"""Of the training stream: what the baseline of MTP counts pairs of tokens in."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An item, the ids that asked it, and what the model answered, to the end token and with it."""

    item: Item
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    text: str

    @property
    def right(self) -> bool:
        return self.text == self.item.answer


def ask(model: ernie_rt.Model, encoder: Encoder, items: Sequence[Item], turn: int = 1) -> list[Answered]:
    """The model's greedy answers to questions, each in a conversation of its own whose earlier ones were answered."""
    prompts = [encoder.prompt(item, history(item, turn)) for item in items]
    stop_ids = encoder.template.stop_ids(encoder.tokenizer)
    generated = model.generate_batch(prompts, temperature=0.0, max_new_tokens=MAX_ANSWER, stop_ids=stop_ids)
    return [
        Answered(item, tuple(prompt), tuple(ids), encoder.tokenizer.decode(ids))
        for item, prompt, ids in zip(items, prompts, generated, strict=True)
    ]


def history(item: Item, turn: int) -> list[Item]:
    """What was asked before a turn, in ways that training knows."""
    rng = random.Random(f"{turn}/{item.prompt}")
    return [draw_item(rng) for _ in range(turn - 1)]


def examine(
    model: ernie_rt.Model, encoder: Encoder, tasks: Mapping[str, Sequence[Item]], seed: int
) -> dict[str, dict[str, list[Answered]]]:
    """Held-out items answered, by where and how they were asked, and by task."""

    def rewritten(write: Callable[[random.Random, Item], Item]) -> dict[str, list[Answered]]:
        rng = random.Random(seed)
        return {task: ask(model, encoder, [write(rng, item) for item in items]) for task, items in tasks.items()}

    found = {
        "as phrased": {task: ask(model, encoder, items) for task, items in tasks.items()},
        "known ways": rewritten(written_in_known_ways),
        "new ways": rewritten(written_in_new_ways),
    }
    for turn in TURNS:
        found[f"turn {turn}"] = {task: ask(model, encoder, items[::TURNS_SHARE], turn) for task, items in tasks.items()}
    return found


def exact_match(examined: Mapping[str, Sequence[Answered]]) -> dict[str, float | int]:
    """The share of right answers to a task's questions: as they are phrased by language and by whether training knows
    the phrasing, then where and how else they were asked."""
    marks: dict[str, list[bool]] = collections.defaultdict(list)
    for each in examined["as phrased"]:
        item = each.item
        new = phrasing_is_held_out(item.form, item.language, item.phrasing)
        for group in ("all", item.language, "new phrasing" if new else "known phrasing"):
            marks[group].append(each.right)
    for column, answered in examined.items():
        if column != "as phrased":
            marks[column] = [each.right for each in answered]
    return {"items": len(marks["all"]), **{group: sum(right) / len(right) for group, right in marks.items()}}


def wrongly_refused(examined: Mapping[str, Mapping[str, Sequence[Answered]]]) -> dict[str, float]:
    """Of questions that have an answer, the share to which the model says that it does not know."""
    shares = {}
    for column, tasks in examined.items():
        said = [each.text for task, answered in tasks.items() if task not in NEVER_KNOWN for each in answered]
        shares[column] = sum(text in REFUSALS for text in said) / len(said)
    return shares


def perplexity(model: ernie_rt.Model, documents: Sequence[Document]) -> float:
    """Of the tokens that a document is there to teach."""
    total, count = 0.0, 0
    for document in documents:
        rows = model.logits(document.ids)[:-1].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        taken = rows[np.arange(len(rows)), document.ids[1:]][np.array(document.learned[1:])]
        total, count = total - float(taken.sum()), count + len(taken)
    return math.exp(total / count)


def held_out_stories(encoder: Encoder, count: int = STORIES) -> list[Document]:
    rng = random.Random("stories")
    return [encoder.plain(draw(rng, "story", LANGUAGES[n % 2], "held_out")) for n in range(count)]


def routers(config: ModelConfig) -> list[str]:
    """The scopes whose taps are the experts' ids."""
    return [f"layers.{layer}.mlp.route" for layer in range(config.num_hidden_layers) if config.is_moe_layer(layer)]


def balance(model: ernie_rt.Model, documents: Sequence[Document]) -> dict[str, list[float]]:
    """What share of its fair share each expert got of the documents' tokens, by layer; needs the taps of `routers`."""
    assert model.config.moe is not None
    loads: dict[str, Any] = collections.defaultdict(int)
    for document in documents:
        for scope, chosen in model.tapped(document.ids).items():
            loads[scope] += np.bincount(chosen.ravel(), minlength=model.config.moe.moe_num_experts)
    return {scope: (load / load.mean()).tolist() for scope, load in loads.items()}


@torch.no_grad()
def foreseen(folder: Path, encoder: Encoder, answered: Sequence[Answered]) -> dict[str, float | int]:
    """How often the token after the next is foreseen: by the MTP layer, and by the likeliest successor (bigram).

    Counted over the tokens of the model's own greedy answers but the first of each, which no draft precedes.
    """
    network = load(folder)
    successors = _successors(encoder)
    hits = bigram_hits = count = 0
    for each in answered:
        ids = torch.tensor([[*each.prompt, *each.ids]])
        documents = torch.zeros_like(ids)
        hidden, _ = network(ids, documents)
        drafts = network.logits(network.further(hidden, ids, documents))[0].argmax(-1).tolist()
        sequence, first = ids[0].tolist(), len(each.prompt) - 1
        for position in range(first, len(sequence) - 2):
            following, target = sequence[position + 1 : position + 3]
            hits += drafts[position] == target
            bigram_hits += successors.get(following) == target
            count += 1
    return {"tokens": count, "mtp": hits / max(count, 1), "bigram": bigram_hits / max(count, 1)}


def _successors(encoder: Encoder) -> dict[int, int]:
    """The likeliest token after each, among those of the training stream that are learned."""
    rng = random.Random("bigram")
    pairs: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for _ in range(BIGRAM_DOCUMENTS):
        document = draw_document(rng, encoder, COLUMNS)
        following = zip(document.ids[:-1], document.targets[1:], document.learned[1:], strict=True)
        for first, second, learned in following:
            if learned:
                pairs[first][second] += 1
    return {first: counts.most_common(1)[0][0] for first, counts in pairs.items()}


def measure(folder: Path, items: int, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, of a folder loaded with `options`; a quantised one has no MTP layer, so no `second_token`."""
    config = ernie_rt.locate(folder).config
    encoder = Encoder(folder, config)
    tasks = {task: held_out_items(task, items, seed) for task in EXAMINED}
    with ernie_rt.load(folder, max_context=MAX_CONTEXT, max_sequences=16, **options) as model:
        choice = model.choice
        examined = examine(model, encoder, tasks, seed)
        questions = [encoder.chat(item) for asked in tasks.values() for item in asked[: max(1, items // 10)]]
        found = {
            "stories": perplexity(model, held_out_stories(encoder)),
            "answers": perplexity(model, questions),
        }
    scores = {task: exact_match({column: each[task] for column, each in examined.items()}) for task in tasks}
    routed = random.Random(seed).sample(questions, min(ROUTED_DOCUMENTS, len(questions)))
    with ernie_rt.load(folder, max_context=512, taps=routers(config), **options) as model:
        loads = balance(model, [*routed, *held_out_stories(encoder, 20)])
    shares = [share for layer in loads.values() for share in layer]
    said = [each for task in examined["as phrased"].values() for each in task]
    return {
        "backend": choice.backend,
        "device": choice.device,
        "dtype": choice.dtype,
        "exact_match": scores,
        "macro_average": {group: _macro(scores, group) for group in ("all", *list(examined)[1:])},
        "weakest": min(scores, key=lambda task: scores[task]["all"]),
        "wrongly_refused": wrongly_refused(examined),
        "perplexity": found,
        "expert_load": {"least": min(shares), "most": max(shares), "layers": loads},
        "second_token": foreseen(folder, encoder, said) if (folder / "model.safetensors").exists() else None,
    }


def _macro(scores: Mapping[str, Mapping[str, float]], group: str) -> float:
    return sum(score[group] for score in scores.values()) / len(scores)
