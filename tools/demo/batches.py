"""Documents made of items, and batches made of documents packed in rows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from demo.curriculum import LANGUAGES, WEIGHTS, Item, draw
from demo.phrasings import PHRASINGS
from demo.words import Language, split_words
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.tokenizer import Tokenizer

PLAIN_SHARE: Final = 0.1
"""Of documents, those without the chat format."""
SECOND_TURN_SHARE: Final = 0.1
"""Of conversations, those with another turn in front; and of these, those with one more."""
LOOSE_SHARE: Final = 0.3
"""Of questions, those said a little differently: politely, with a word in front, without a full stop, in small
letters."""
ALONE: Final = frozenset({"arithmetic", "sequence", "units", "story"})
"""Tasks whose answers say by themselves what they are."""


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and which of them a model is to learn to write."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed documents, each `[B, T]`: ids, the number of a document in its row (-1 is padding), what to learn."""

    ids: Tensor
    documents: Tensor
    learned: Tensor

    def to(self, device: str) -> Batch:
        return Batch(self.ids.to(device), self.documents.to(device), self.learned.to(device))

    def positions(self, ahead: int, learned: bool = True) -> Tensor:
        """The flat positions whose `ahead`-th next token is of the same document and to be learned, or not to be."""
        at = torch.zeros_like(self.learned)
        mine = self.documents[:, ahead:] == self.documents[:, :-ahead]
        at[:, :-ahead] = mine & (self.learned[:, ahead:] == learned) & (self.documents[:, ahead:] >= 0)
        return at.flatten().nonzero()[:, 0]


class Encoder:
    """Items to token ids, by the tokenizer and the chat template of a folder."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.tokenizer = Tokenizer.load(folder, config)
        template = ChatTemplate.load(folder)
        assert template is not None
        self.template = template
        self.end = config.eos_token_id[0]

    def answer(self, item: Item) -> list[int]:
        """The ids of an answer; what is spelled goes letter by letter, which decodes to the same text."""
        head = item.answer.removesuffix(item.spelled)
        return self.tokenizer.encode(head) + [id for letter in item.spelled for id in self.tokenizer.encode(letter)]

    def prompt(self, item: Item, history: Iterable[Item] = ()) -> list[int]:
        """The ids that ask `item` in a conversation, after the turns of `history`."""
        turns = [(*past.messages, {"role": "assistant", "content": past.answer}) for past in history]
        return list(self.template.prompt([*itertools.chain(*turns), *item.messages], self.tokenizer).ids)

    def chat(self, item: Item, history: Iterable[Item] = ()) -> Document:
        """A conversation; of its answers the last one is to be learned."""
        return self._document(self.prompt(item, history), self.answer(item))

    def plain(self, item: Item) -> Document:
        if item.task in ALONE:
            return self._document([], self.answer(item))
        asked, answered = ("Question: ", "\nAnswer: ") if item.language == "en" else ("问题:", "\n答案:")
        return self._document(self.tokenizer.encode(f"{asked}{item.prompt}{answered}"), self.answer(item))

    def _document(self, prompt: list[int], answer: list[int]) -> Document:
        answer = [*answer, self.end]
        return Document(prompt + answer, [False] * len(prompt) + [True] * len(answer))


POLITE: Final = split_words(
    "Add Answer Calculate Change Compare Convert Count Give List Order Put Reverse Say Sort Spell Subtract Tell "
    "Translate Write 把 用 写 求 算 翻 列 数 按 计"
)
"""Beginnings that a "please" goes in front of."""


OPENINGS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("Hello! ", "Hi, ", "Tell me: ", "Now: ", "One question: ", "Can you help me? ", "Quick: ", "OK. "),
    "zh": ("你好!", "请问,", "问一下:", "那么,", "帮我一下:", "告诉我:", "好的。", "再来:"),
}


def loosen(rng: random.Random, item: Item) -> Item:
    """The same question, said a little differently."""
    prompt = item.prompt
    english = item.language == "en"
    match rng.randrange(4):
        case 0:
            prompt = prompt.rstrip(".。")
        case 1 if english and prompt[:2].istitle():
            prompt = prompt[0].lower() + prompt[1:]
        case 2 if PHRASINGS[item.form, item.language][item.phrasing].startswith(POLITE):
            prompt = f"Please {prompt[0].lower()}{prompt[1:]}" if english else f"请{prompt}"
        case 3 if item.task != "greeting":
            prompt = rng.choice(OPENINGS[item.language]) + prompt
    return replace(item, prompt=prompt)


def draw_document(rng: random.Random, encoder: Encoder) -> Document:
    """One document of the training stream."""

    def item() -> Item:
        task = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        drawn = draw(rng, task, rng.choice(LANGUAGES), "train")
        return loosen(rng, drawn) if rng.random() < LOOSE_SHARE else drawn

    if rng.random() < PLAIN_SHARE:
        return encoder.plain(item())
    history: list[Item] = []
    while rng.random() < SECOND_TURN_SHARE and len(history) < 2:
        history.append(item())
    return encoder.chat(item(), history)


def pack(documents: Iterable[Document], rows: int, columns: int) -> Batch:
    """Put each document into the first row that has room, until eight found none; rows left empty go."""
    ids = torch.zeros(rows, columns, dtype=torch.long)
    numbers = torch.full((rows, columns), -1)
    learned = torch.zeros(rows, columns, dtype=torch.bool)
    used, counts, misses = [0] * rows, [0] * rows, 0
    for document in documents:
        size = len(document.ids)
        row = next((row for row in range(rows) if used[row] + size <= columns), None)
        if row is None:
            misses += 1
            if misses == 8:
                break
            continue
        place = slice(used[row], used[row] + size)
        ids[row, place] = torch.tensor(document.ids)
        learned[row, place] = torch.tensor(document.learned)
        numbers[row, place] = counts[row]
        used[row] += size
        counts[row] += 1
    filled = sum(count > 0 for count in counts)
    return Batch(ids[:filled], numbers[:filled], learned[:filled])


def training_batch(encoder: Encoder, seed: int, step: int, rows: int, columns: int) -> Batch:
    """The batch of a step: it depends on nothing but its arguments."""
    rng = random.Random(f"{seed}/{step}")
    return pack((draw_document(rng, encoder) for _ in itertools.count()), rows, columns)
