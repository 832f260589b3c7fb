"""What ernie-rt refuses of the folders that transformers saves, in which words, and why a person agrees."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from ernie_rt.errors import (
    CheckpointError,
    ConfigError,
    ErnieRtError,
    InputError,
    TokenizerError,
    UnsafeCheckpointError,
)
from support.saved.told import Told

Stage = Literal["config", "weights", "tokenizer"]
"""Where a refusal comes: a config's when a model is located, the others' when they are first used."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind: of which folders, with an error whose text has `words` in it, a regular expression."""

    stage: Stage
    applies: Callable[[Told], bool]
    error: type[ErnieRtError]
    words: str
    why: str

    def fits(self, error: ErnieRtError) -> bool:
        return isinstance(error, self.error) and re.search(self.words, str(error)) is not None


REFUSALS: Final = (
    Refusal(
        "config",
        lambda told: "scaled rope" in told.variation.edits,
        ConfigError,
        "rope_type",
        "scaled positions are not implemented, and without them every logit would be another one",
    ),
    Refusal(
        "config",
        lambda told: "hidden_act" in told.variation.config,
        ConfigError,
        "hidden_act",
        "no ERNIE 4.5 has another activation, and it is not implemented",
    ),
    Refusal(
        "config",
        lambda told: told.variation.bare,
        ConfigError,
        "architectures",
        "a model that was saved without its head is for other uses, and its config says so",
    ),
    Refusal(
        "weights",
        lambda told: "variant" in told.variation.save and not told.variation.saved_before,
        InputError,
        r"there are no weights|'pytorch_model\.bin'",
        "transformers too reads model.fp16.safetensors only if it is told to",
    ),
    Refusal(
        "weights",
        lambda told: not told.variation.save.get("safe_serialization", True) and not told.variation.saved_before,
        UnsafeCheckpointError,
        "the weights are pickles",
        "a pickle runs code when it is opened",
    ),
    Refusal(
        "weights",
        lambda told: told.expert_biases,
        CheckpointError,
        r"tensors left over.*experts\.\d+\.\w+\.bias",
        "no ERNIE 4.5 has experts with biases, and they are not implemented; transformers 5 drops them",
    ),
    Refusal(
        "tokenizer",
        lambda told: told.variation.tokenizer == "none",
        InputError,
        r"tokenizer\.model|there are no weights|the weights are pickles",
        "there is none, and perhaps no weights either, which is said first",
    ),
    Refusal(
        "tokenizer",
        lambda told: told.variation.tokenizer == "trained bytes",
        TokenizerError,
        "of another kind|that ERNIE's tokenizer does not have",
        "ERNIE has no byte-level tokenizer, and one is not implemented",
    ),
    Refusal(
        "tokenizer",
        lambda told: told.variation.tokenizer == "trained unigram",
        TokenizerError,
        "of another kind",
        "ERNIE has no unigram tokenizer, and one is not implemented",
    ),
    Refusal(
        "tokenizer",
        lambda told: told.judged.tokens > told.rows,
        TokenizerError,
        "vocab_size",
        "there are tokens without an embedding",
    ),
)
