"""What is said of a saved folder by the transformers that saved it: written beside it as told.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from support.saved.variation import Variation

NAME = "told.json"


@dataclass(slots=True)
class Judged:
    """What a tokenizer makes of texts, of ids, and of conversations."""

    texts: list[tuple[str, list[int]]] = field(default_factory=list)
    """Texts as people write them, and their ids."""
    decoded: list[tuple[list[int], str]] = field(default_factory=list)
    """Ids and their text, special tokens left out."""
    tokens: int = 0
    """One more than the highest id."""
    chats: list[tuple[list[dict[str, str]], list[int]]] = field(default_factory=list)
    """Conversations and the ids of the prompt that asks for an answer; none without a chat template."""


@dataclass(slots=True)
class Told:
    """A folder: how it was made, and what it means. `logits.npy` beside it has the logits `[N, V]` after each id."""

    transformers: str
    variation: Variation
    ids: list[int]
    rows: int
    eos: int | list[int] | None
    """What the config says; a generation config may say otherwise."""
    expert_biases: bool
    judged: Judged

    def write(self, where: Path) -> None:
        (where / NAME).write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, where: Path) -> Self:
        fields: dict[str, Any] = json.loads((where / NAME).read_text(encoding="utf-8"))
        fields |= {"variation": Variation(**fields["variation"]), "judged": Judged(**fields["judged"])}
        return cls(**fields)
