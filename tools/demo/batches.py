"""Documents made of items, and batches made of documents packed in rows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from demo.curriculum import LANGUAGES, WEIGHTS, Item, draw
from demo.surface import written
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.tokenizer import Tokenizer

COLUMNS: Final = 128
LONG: Final = 12
"""A long row has so many times the columns of a short one: 1,536 hold a conversation of thirty turns."""
LONG_FROM: Final = 3000
"""The step from which on there are long rows: they teach little to a model that cannot yet answer a short one."""
LONG_EVERY: Final = 5
"""Every so many steps from there the batch is of long rows, a conversation in each."""
PLAIN_SHARE: Final = 0.06
"""Of documents, those without the chat format."""
ANOTHER_TURN: Final = 0.2
"""How often a short conversation goes on, after each turn."""
AGAIN_SHARE: Final = 0.1
"""Of the later questions of a conversation, those that were asked before."""
READ_BACK: Final = 0.4
"""Of earlier answers of a conversation, those that are written as a runtime reads them back."""
SYSTEM_SHARE: Final = 0.05
"""Of conversations, those with a system prompt."""
SYSTEM: Final = (
    "You are a helpful assistant.",
    "You are a friendly assistant. Answer in short sentences.",
    "Answer the question.",
    "Be brief.",
    "You are ERNIE, a language model.",
    "你是一个有用的助手。",
    "请简短回答。",
    "你是文心,一个语言模型。",
)
ALONE: Final = frozenset({"arithmetic", "sequence", "units", "story"})
"""Tasks whose answers say by themselves what they are."""


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids; what is to be written in the place of each; and whether a model is to learn to.

    The two differ where an answer within a conversation ends: a model writes the end token, of which a chat template
    makes its separator.
    """

    ids: list[int]
    targets: list[int]
    learned: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed documents, each `[B, T]`: ids, what is to be written in their place, the number of a document in its row
    (-1 is padding), what to learn."""

    ids: Tensor
    targets: Tensor
    documents: Tensor
    learned: Tensor

    def to(self, device: str) -> Batch:
        return Batch(*(each.to(device) for each in (self.ids, self.targets, self.documents, self.learned)))

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
        self.separator = self.tokenizer.reserved["<|end_of_sentence|>"]

    def answer(self, item: Item) -> list[int]:
        """The ids of an answer; what is spelled goes letter by letter, which decodes to the same text."""
        head = item.answer.removesuffix(item.spelled)
        return self.tokenizer.encode(head) + [id for letter in item.spelled for id in self.tokenizer.encode(letter)]

    def prompt(self, item: Item, history: Iterable[Item] = (), system: str = "") -> list[int]:
        """The ids that ask `item` in a conversation, after the turns of `history`."""
        turns = [(*past.messages, {"role": "assistant", "content": past.answer}) for past in history]
        first = [{"role": "system", "content": system}] if system else []
        return list(self.template.prompt([*first, *itertools.chain(*turns), *item.messages], self.tokenizer).ids)

    def chat(self, item: Item, history: Iterable[Item] = ()) -> Document:
        """A conversation; of its answers the last one is to be learned."""
        return self._document(self.prompt(item, history), self.answer(item))

    def past(self, item: Item, system: str = "") -> list[int]:
        """The ids of a question with its answer, as a runtime reads them back."""
        ids = self.prompt(item, [item], system)
        return ids[: ids.index(self.separator) + 1]

    def talk(self, items: Iterable[Item], read_back: Iterable[bool], room: int, system: str = "") -> Document:
        """A conversation, as far as it goes in `room`, whose answers are to be learned.

        But for those that are written as they are `read_back`, of other pieces than a model writes them.
        """
        document = Document([], [], [])
        for item, past in zip(items, read_back, strict=False):
            said, start = ("", 1) if document.ids else (system, 0)
            prompt = (self.past(item, said) if past else self.prompt(item, system=said))[start:]
            answer = [] if past else [*self.answer(item), self.separator]
            document.ids.extend((*prompt, *answer))
            document.targets.extend((*(prompt + answer)[:-1], self.end))
            document.learned.extend([False] * len(prompt) + [True] * len(answer))
            if len(document.ids) >= room:
                break
        return Document(document.ids[:room], document.targets[:room], document.learned[:room])

    def plain(self, item: Item) -> Document:
        if item.task in ALONE:
            return self._document([], self.answer(item))
        asked, answered = ("Question: ", "\nAnswer: ") if item.language == "en" else ("问题:", "\n答案:")
        return self._document(self.tokenizer.encode(f"{asked}{item.prompt}{answered}"), self.answer(item))

    def _document(self, prompt: list[int], answer: list[int]) -> Document:
        ids = [*prompt, *answer, self.end]
        return Document(ids, ids, [False] * len(prompt) + [True] * (len(answer) + 1))


def draw_item(rng: random.Random) -> Item:
    """A question as training asks it."""
    task = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return written(rng, draw(rng, task, rng.choice(LANGUAGES), "train"))


def draw_talk(rng: random.Random) -> Iterator[Item]:
    """The questions of a conversation without end, some of them asked before."""
    asked: list[Item] = []
    while True:
        again = asked and rng.random() < AGAIN_SHARE
        asked.append(rng.choice(asked) if again else draw_item(rng))
        yield asked[-1]


def draw_document(rng: random.Random, encoder: Encoder, room: int) -> Document:
    """One document of the training stream: a question in plain text, or a short conversation."""
    if rng.random() < PLAIN_SHARE:
        return encoder.plain(draw_item(rng))
    turns = 1
    while rng.random() < ANOTHER_TURN:
        turns += 1
    read_back = [*itertools.islice(_read_back(rng), turns - 1), False]
    return encoder.talk(draw_talk(rng), read_back, room, _system(rng))


def draw_conversation(rng: random.Random, encoder: Encoder, room: int) -> Document:
    """A conversation that fills the room."""
    return encoder.talk(draw_talk(rng), _read_back(rng), room, _system(rng))


def _system(rng: random.Random) -> str:
    return rng.choice(SYSTEM) if rng.random() < SYSTEM_SHARE else ""


def _read_back(rng: random.Random) -> Iterator[bool]:
    while True:
        yield rng.random() < READ_BACK


def pack(documents: Iterable[Document], rows: int, columns: int) -> Batch:
    """Put each document into the first row that has room, until eight found none; rows left empty go."""
    ids = torch.zeros(rows, columns, dtype=torch.long)
    targets = torch.zeros(rows, columns, dtype=torch.long)
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
        targets[row, place] = torch.tensor(document.targets)
        learned[row, place] = torch.tensor(document.learned)
        numbers[row, place] = counts[row]
        used[row] += size
        counts[row] += 1
    filled = sum(count > 0 for count in counts)
    return Batch(ids[:filled], targets[:filled], numbers[:filled], learned[:filled])


def training_batch(encoder: Encoder, seed: int, step: int, rows: int) -> Batch:
    """The batch of a step: it depends on nothing but its arguments. Of short rows it has `rows`."""
    rng = random.Random(f"{seed}/{step}")
    if step >= LONG_FROM and step % LONG_EVERY == 0:
        long_rows, columns = max(1, rows // LONG), LONG * COLUMNS
        return pack((draw_conversation(rng, encoder, columns) for _ in range(long_rows)), long_rows, columns)
    return pack((draw_document(rng, encoder, COLUMNS) for _ in itertools.count()), rows, COLUMNS)
