"""What is asked: prompts that no cache has seen, or those of a file."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ernie_rt import files
from ernie_rt.display import shown
from ernie_rt.errors import FileFormatError, OptionError
from ernie_rt_serve.structs import decode

DATASET_LIMIT: Final = 1 << 30

COMMON: Final = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them these
so some her would make like him into time has look two more write go see number no way could people my than first water
been call who oil its now find long down day did get come made may part over new sound take only little work know place
year live me back give most very after thing our just name good sentence man think say great where help through much
before line right too mean old any same tell boy follow came want show also around form three small set put end does
another well large must big even such because turn here why ask went men read need land different home us move try kind
hand picture again change off play spell air away
"""
"""Short and common words, for which most tokenizers have a token of their own."""


@dataclass(frozen=True, slots=True)
class Length:
    """So many tokens, drawn evenly between two bounds, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, option: str, text: str) -> Length:
        """`256` or `128-512`; OptionError otherwise."""
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high:
            raise OptionError(
                f"{option} is no length", expected="a number of tokens, or a range such as 128-512", found=shown(text)
            )
        return cls(low, high)

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a server counts words as tokens: `offset` are those that a chat template adds."""

    per_word: float = 1.0
    offset: float = 0.0

    @classmethod
    def fitted(cls, few: tuple[int, int], many: tuple[int, int]) -> Scale:
        """Through two prompts, each as its words and tokens."""
        per_word = max((many[1] - few[1]) / (many[0] - few[0]), 0.01)
        return cls(per_word, few[1] - per_word * few[0])

    def words(self, tokens: int) -> int:
        return max(1, round((tokens - self.offset) / self.per_word))


class Shape:
    """Makes bodies for one endpoint; `extra` goes over every field, and null takes one out."""

    def __init__(self, endpoint: str, model: str, extra: Mapping[str, Any]) -> None:
        self.chat = endpoint == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self._fields: dict[str, Any] = {
            "model": model, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
        }  # fmt: skip
        self._extra = dict(extra)

    def without(self, field: str) -> None:
        """Leave out a field that the server does not take."""
        self._fields.pop(field, None)

    def body(self, prompt: str | list[Any], max_tokens: int) -> bytes:
        """Of a text or, for chat, of messages too."""
        if self.chat:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            asked: dict[str, Any] = {"messages": messages}
        else:
            asked = {"prompt": prompt}
        fields = self._fields | asked | {"max_tokens": max_tokens} | self._extra
        return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def words(rng: random.Random, count: int) -> str:
    """A text of random words: of two such texts, hardly ever more than the first word is the same."""
    return " ".join(rng.choices(COMMON.split(), k=count))


def every_word(rng: random.Random) -> list[str]:
    """Each word once, in some order: what they are in tokens tells what one is on average."""
    return rng.sample(COMMON.split(), k=len(COMMON.split()))


def unique_bodies(
    shape: Shape, rng: random.Random, scale: Scale, prompt: Length, answer: Length, shared: int
) -> Iterator[bytes]:
    """Bodies without end, no two with a beginning in common, after the one of `shared` tokens that all have."""
    beginning = f"{words(rng, Scale(scale.per_word).words(shared))} " if shared else ""
    while True:
        text = beginning + words(rng, scale.words(prompt.draw(rng)))
        yield shape.body(text, answer.draw(rng))


class Line(msgspec.Struct):
    """A line of a dataset: a text or messages, and perhaps how many tokens the answer may have."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = None


def read_dataset(path: Path, *, chat: bool) -> list[Line]:
    """The lines of a file; FileFormatError names one that cannot be asked."""
    lines: list[Line] = []
    for number, text in enumerate(files.read_bytes(path, DATASET_LIMIT).splitlines(), 1):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        expected = '{"prompt": "…"}' + (' or {"messages": […]}' if chat else "") + ', perhaps with "max_tokens"'
        try:
            line = decode(text, Line)
        except msgspec.MsgspecError as error:
            raise FileFormatError("cannot be asked", where=where, expected=expected, found=str(error)) from None
        if (line.prompt is None) == (line.messages is None) or (line.messages is not None and not chat):
            raise FileFormatError(
                "cannot be asked", where=where, expected=expected, found=shown(msgspec.to_builtins(line))
            )
        lines.append(line)
    if not lines:
        raise FileFormatError("holds no prompt", where=str(path))
    return lines


def dataset_bodies(shape: Shape, rng: random.Random, lines: list[Line], answer: Length) -> Iterator[bytes]:
    """The lines of a dataset in their order, again and again."""
    while True:
        for line in lines:
            prompt = line.prompt if line.messages is None else line.messages
            assert prompt is not None
            yield shape.body(prompt, line.max_tokens or answer.draw(rng))
