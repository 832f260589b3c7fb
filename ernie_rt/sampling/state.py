"""What the sampler remembers of one sequence."""

from __future__ import annotations

import secrets
from array import array
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ernie_rt.sampling.constraint import Constraint, Mask, checked_mask, named_errors
from ernie_rt.sampling.params import SamplingParams

Ids = npt.NDArray[np.int32]


class SamplerState:
    """The parameters of a sequence, and what its tokens so far mean for the next one.

    Made from the prompt and told every further token, so it is the same whatever steps the tokens came in, and whether
    the sequence had to be computed anew. `position` is the place of the next token in the sequence. Ids at or above
    `vocab_size` are never chosen (None: all may be). What a `constraint` raises is passed on with a name.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        stop_ids: Iterable[int] = (),
        vocab_size: int | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.params = params
        self.vocab_size = vocab_size
        self.seed = secrets.randbits(64) if params.seed is None else params.seed
        self.position = len(prompt)
        self._unstoppable = self.position + params.min_new_tokens
        self.stop_ids = sorted(stop_ids)
        self.bias_ids = np.fromiter(params.logit_bias, np.int32)
        self.biases = np.fromiter(params.logit_bias.values(), np.float32)
        self.allowed = None if params.allowed_ids is None else np.array(params.allowed_ids, np.int32)
        longest = max(map(len, params.bad_words), default=1)
        self._tail = deque(prompt, maxlen=longest - 1)
        # Each token of the sequence once, and how often it was generated: 0 for those of the prompt alone.
        self._place = {id: place for place, id in enumerate(dict.fromkeys(prompt if params.penalises else ()))}
        self._ids = array("i", self._place)
        self._counts = array("i", bytes(4 * len(self._place)))
        with named_errors():
            self._constraint = None if constraint is None else constraint.start()

    @property
    def drawable(self) -> bool:
        """Whether a device can choose its tokens by itself (`Draws`)."""
        return self.params.drawable and not self.constrained

    @property
    def constrained(self) -> bool:
        return self._constraint is not None

    @property
    def may_end(self) -> bool:
        """Whether a constraint lets the text end here."""
        if self._constraint is None:
            return True
        with named_errors():
            return self._constraint.may_end

    @property
    def complete(self) -> bool:
        """Whether a constraint lets nothing follow."""
        if self._constraint is None:
            return False
        with named_errors():
            return self._constraint.complete

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self.position += 1
        self._tail.append(token)
        if self.params.penalises:
            place = self._place.setdefault(token, len(self._ids))
            if place == len(self._ids):
                self._ids.append(token)
                self._counts.append(0)
            self._counts[place] += 1
        if self._constraint is not None and token not in self.stop_ids:
            with named_errors():
                self._constraint.accept(token)

    def mask(self) -> Mask | None:
        """What a constraint lets come next, waited for if need be."""
        if self._constraint is None:
            return None
        with named_errors():
            return checked_mask(self._constraint.mask())

    def counted(self) -> tuple[Ids, Ids]:
        """The distinct tokens of the sequence, and how often each was generated; only where penalties need them."""
        return np.array(self._ids, np.int32), np.array(self._counts, np.int32)

    def masked(self) -> list[int]:
        """The ids that bad words and `min_new_tokens` rule out for the next token."""
        tail = tuple(self._tail)
        ruled_out = [word[-1] for word in self.params.bad_words if len(word) == 1 or tail[1 - len(word) :] == word[:-1]]
        return ruled_out + (self.stop_ids if self.position < self._unstoppable else [])
