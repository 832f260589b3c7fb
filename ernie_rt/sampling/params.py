"""What a request asks of the sampler."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from ernie_rt.display import shown
from ernie_rt.errors import OptionError

MIN_TEMPERATURE: Final = 0.01
"""Below it logits divided by temperature could overflow, and nothing differs from greedy any more."""
MAX_TOP_LOGPROBS: Final = 20
MAX_BIASES: Final = 4096
MAX_BAD_WORDS: Final = 1024
MAX_BAD_WORD_IDS: Final = 64

RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "temperature": (0, 100),
        "top_p": (0, 1),
        "min_p": (0, 1),
        "repetition_penalty": (0.01, 100),
        "presence_penalty": (-2, 2),
        "frequency_penalty": (-2, 2),
    }
)
"""The closed ranges of the real numbers; temperature and top_p have a gap each."""

WHOLE: Final[Mapping[str, int]] = MappingProxyType(
    {"top_k": 2**31 - 1, "min_new_tokens": 2**31 - 1, "seed": 2**64 - 1, "logprobs": MAX_TOP_LOGPROBS}
)
"""The largest values of the whole numbers; the smallest is 0."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen; see docs/sampling.md. The defaults are greedy; impossible values are OptionErrors.

    `top_k` 0, `top_p` 1 and `min_p` 0 keep every token. `logit_bias` is added to logits by id. `bad_words` are
    sequences of ids that must not come about, `allowed_ids` the only ones that may be chosen. No stop id is chosen
    among the first `min_new_tokens`. `seed` None draws a fresh one for each request. `logprobs` asks for the log
    probability of each chosen token, and of so many of the likeliest, `margins` also for what it was preferred to.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[tuple[int, ...], ...] = ()
    allowed_ids: tuple[int, ...] | None = None
    min_new_tokens: int = 0
    seed: int | None = None
    logprobs: int | None = None
    margins: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            self._set(name, _real(name, getattr(self, name), low, high))
        for name, high in WHOLE.items():
            value = getattr(self, name)
            if value is not None or name in ("top_k", "min_new_tokens"):
                self._set(name, _whole(name, value, high))
        if 0 < self.temperature < MIN_TEMPERATURE:
            raise OptionError(
                "temperature is too small", expected=f"0, or {MIN_TEMPERATURE} to 100", found=self.temperature,
                hint="0 chooses the likeliest token",
            )  # fmt: skip
        if not isinstance(self.margins, bool):
            raise OptionError("margins is not possible", expected="True or False", found=shown(self.margins))
        if self.top_p == 0:
            raise OptionError(
                "top_p is out of range", expected="above 0, at most 1", found=self.top_p, hint="temperature 0 is greedy"
            )
        self._set("logit_bias", _biases(self.logit_bias))
        self._set("bad_words", _bad_words(self.bad_words))
        if self.allowed_ids is not None:
            allowed = tuple(sorted(set(check_ids("allowed_ids", self.allowed_ids))))
            if not allowed:
                raise OptionError("allowed_ids is empty", expected="at least one token id", hint="Leave it out")
            self._set("allowed_ids", allowed)

    @property
    def plain(self) -> bool:
        """Whether the token is the largest logit and nothing else is asked for."""
        return self.temperature == 0 and self.drawable

    @property
    def drawable(self) -> bool:
        """Whether temperature, top-k, top-p, min-p and seed say it all: what a device can do by itself (`Draws`)."""
        return not (self.penalises or self.masks or self.margins) and self.logprobs is None

    @property
    def penalises(self) -> bool:
        """Whether tokens of the sequence change their logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def masks(self) -> bool:
        """Whether single logits are changed by id."""
        return bool(self.logit_bias or self.bad_words or self.min_new_tokens) or self.allowed_ids is not None

    def check_vocabulary(self, vocab_size: int) -> None:
        """OptionError when an id in these parameters does not exist."""
        named = {
            "logit_bias": self.logit_bias,
            "bad_words": {id for word in self.bad_words for id in word},
            "allowed_ids": self.allowed_ids or (),
        }
        for name, ids in named.items():
            for id in ids:
                if id >= vocab_size:
                    raise OptionError(
                        f"{name} holds a token id outside the vocabulary", expected=f"0 to {vocab_size - 1}", found=id
                    )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _real(name: str, value: Any, low: float, high: float) -> float:
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # nor does NaN
        raise OptionError(f"{name} is out of range", expected=f"a number from {low:g} to {high:g}", found=shown(value))
    return float(value)


def whole_number(value: Any) -> int | None:
    """A whole number as an int; None for anything else. NumPy's have an index too; a bool has one and is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _whole(name: str, value: Any, high: int) -> int:
    number = whole_number(value)
    if number is None or not 0 <= number <= high:
        raise OptionError(f"{name} is out of range", expected=f"a whole number from 0 to {high}", found=shown(value))
    return number


def check_ids(name: str, given: Any) -> tuple[int, ...]:
    """Token ids as ints; OptionError when they are none."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise OptionError(f"{name} is no list of token ids", found=shown(given))
    return tuple(_whole(f"a token id in {name}", id, 2**31 - 1) for id in given)


def _biases(given: Any) -> Mapping[int, float]:
    if not isinstance(given, Mapping) or len(given) > MAX_BIASES:
        raise OptionError(
            "logit_bias is no mapping of token ids to numbers", expected=f"at most {MAX_BIASES} of them",
            found=shown(given),
        )  # fmt: skip
    ids = check_ids("logit_bias", given)
    values = [_real(f"logit_bias of {id}", value, -100, 100) for id, value in zip(ids, given.values(), strict=True)]
    return MappingProxyType(dict(zip(ids, values, strict=True)))


def _bad_words(given: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise OptionError("bad_words is no list of sequences of token ids", found=shown(given))
    words = tuple(check_ids("bad_words", word) for word in given)
    if len(words) > MAX_BAD_WORDS or not all(1 <= len(word) <= MAX_BAD_WORD_IDS for word in words):
        raise OptionError(
            "bad_words is out of range",
            expected=f"at most {MAX_BAD_WORDS} sequences of 1 to {MAX_BAD_WORD_IDS} token ids",
            found=f"{len(words)} sequences of up to {max(map(len, words))} ids",
        )
    return words


GREEDY: Final = SamplingParams()
"""The largest logit, and nothing else."""
