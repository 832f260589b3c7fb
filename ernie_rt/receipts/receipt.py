"""A receipt: what an answer was made of and by, so that it can be made again and compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ernie_rt import writing
from ernie_rt.errors import WriteError
from ernie_rt.generation.options import GenerateOptions
from ernie_rt.graph.types import DType
from ernie_rt.receipts.shown import Shown

FORMAT: Final = 2
"""With pictures and videos, which 1 had not: a receipt of a text says 1 still."""
TOP: Final = 5
"""How many of the likeliest tokens it has at each place."""


def check_free(path: Path, *, overwrite: bool) -> None:
    """WriteError where a receipt could not be written, or would meet a file that it may not replace.

    That is said before anything is computed for it.
    """
    writing.check_targets(path)
    if not overwrite and os.path.lexists(path):
        raise WriteError(
            "cannot be written", where=str(path), found="something is there", hint="Choose another path, or --overwrite"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model is, wherever it lies: digests, in hexadecimal.

    `weights` is the fingerprint of every byte. Of weights that ernie-rt quantised, `made_from` is the plan by which
    they were made, the fingerprint of the checkpoint in it: two layouts of the same numbers have the same. `graph` is
    of what is computed, in no backend's form, `tokenizer` of what every id stands for. `name` is for people.
    """

    name: str
    weights: str
    graph: str
    tokenizer: str
    made_from: Mapping[str, str | int | bool] | None = None

    def differences(self, other: Identity) -> list[str]:
        """In what another model is not this one: "weights", "graph", "tokenizer"."""
        made_alike = self.made_from is not None and self.made_from == other.made_from
        differing = [] if made_alike or self.weights == other.weights else ["weights"]
        return differing + [name for name in ("graph", "tokenizer") if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, slots=True)
class Ran:
    """By what an answer was made; `versions` are of the backend's distribution and what it requires."""

    backend: str
    device: str
    dtype: DType
    deterministic: bool = False
    threads: int | None = None
    versions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.backend}@{self.device}:{self.dtype}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token of an answer: its log probability and the likeliest ones', and what it was preferred to, by how much."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    runner_up: tuple[int, float] | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an answer was made of. `items` are the prompt's pictures and videos; `date` is UTC, in ISO 8601; `text` is
    there only where somebody asked for it."""

    model: Identity
    ran: Ran
    options: GenerateOptions
    prompt: tuple[int, ...]
    answer: tuple[Chosen, ...]
    finish: str
    date: str
    ernie_rt: str
    text: Mapping[str, str] | None = field(default=None, repr=False)
    items: tuple[Shown, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(chosen.id for chosen in self.answer)

    def to_json(self) -> dict[str, Any]:
        options: dict[str, Any] = dict(self.options)
        options["logit_bias"] = [[id, bias] for id, bias in options["logit_bias"].items()]
        model = {name: getattr(self.model, name) for name in ("name", "weights", "graph", "tokenizer")}
        made_from = None if self.model.made_from is None else dict(self.model.made_from)
        ran = {name: getattr(self.ran, name) for name in ("backend", "device", "dtype", "deterministic", "threads")}
        answer = [
            {
                "id": chosen.id,
                "logprob": chosen.logprob,
                "top": [list(pair) for pair in chosen.top],
                "runner_up": None if chosen.runner_up is None else list(chosen.runner_up),
            }
            for chosen in self.answer
        ]
        return {
            "receipt": FORMAT if self.items else 1,
            "ernie_rt": self.ernie_rt,
            "date": self.date,
            "model": model | {"made_from": made_from},
            "ran": ran | {"versions": list(self.ran.versions)},
            "options": options,
            "prompt": list(self.prompt),
            **({"items": [each.to_json() for each in self.items]} if self.items else {}),
            "answer": answer,
            "finish": self.finish,
        } | ({} if self.text is None else {"text": dict(self.text)})

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as JSON, whole or not at all; WriteError where that fails, or something is there already."""
        data = self.to_json()
        tokens = ",\n  ".join(json.dumps(each) for each in data.pop("answer"))
        head = ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in data.items())
        with writing.write_atomic(Path(path), overwrite=overwrite) as file:
            file.write(f'{{{head},\n "answer": [\n  {tokens}\n ]}}\n'.encode())
