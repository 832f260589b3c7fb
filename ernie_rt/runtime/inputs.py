"""What a graph takes in for each token beside its id, cut to the tokens of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ernie_rt.graph.types import TensorType

Array = npt.NDArray[Any]

POSITIONS: Final = "positions"
"""Of one column they are the places of the tokens, and every step has them; of several, a request may bring its own."""


@dataclass(frozen=True, eq=False)
class PerToken:
    """A row for each token of the prompt, `[T, ..]`, such as positions of several columns, or the kinds of tokens.

    The tokens that follow have zeros or, where they `count`, rows that go on by one, in all columns alike, from the
    largest number of the prompt.
    """

    values: Array
    then: Literal["zeros", "count"] = "zeros"

    @classmethod
    def places(cls, tokens: int, taken: TensorType) -> PerToken:
        """Positions of a prompt of text: the place of each token, in all columns."""
        return cls(np.broadcast_to(np.arange(tokens, dtype=np.int32)[:, None], taken.shape({"N": tokens})), "count")

    @cached_property
    def _after(self) -> int:
        """The number of the first token behind the prompt, where they count."""
        return int(self.values.max(initial=-1)) + 1

    def problem(self, tokens: int, taken: TensorType) -> str | None:
        """Why it does not fit a prompt of so many tokens, or what the graph takes in under its name."""
        if len(self.values) != tokens:
            return f"has {len(self.values)} rows for a prompt of {tokens} tokens"
        if self.values.dtype.name != taken.dtype or self.values.shape[1:] != taken.dims[1:]:
            return f"has {self.values.dtype} {list(self.values.shape)}, where the graph takes {taken}"
        return None

    def cut(self, start: int, stop: int) -> Array:
        """The rows of the tokens from `start` to `stop`."""
        given, length = self.values, len(self.values)
        if stop <= length:
            return given[start:stop]
        more = np.zeros((stop - max(start, length), *given.shape[1:]), given.dtype)
        if self.then == "count":
            after = np.arange(max(start, length), stop) - length + self._after
            more += after.reshape(-1, *[1] * (given.ndim - 1)).astype(given.dtype)
        return np.concatenate([given[start:], more])


def gather(inputs: Sequence[Mapping[str, PerToken]], spans: Sequence[tuple[int, int]]) -> dict[str, Array]:
    """The inputs of a step, whose sequences bring the tokens of these spans; all have inputs of the same names."""
    return {
        name: np.concatenate([each[name].cut(*span) for each, span in zip(inputs, spans, strict=True)])
        for name in inputs[0]
    }
