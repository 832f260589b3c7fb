"""What a graph takes in for each token beside its id, cut to the tokens of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ernie_rt.graph.types import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PerToken:
    """A row for each token of the prompt, `[T, ..]`, such as positions of several columns, or the kinds of tokens.

    The tokens that follow have zeros or, where they `count`, rows that go on by one, in all columns alike, from the
    largest number of the prompt.
    """

    values: Array
    then: Literal["zeros", "count"] = "zeros"

    @cached_property
    def _after(self) -> int:
        """The number of the first token behind the prompt, where they count."""
        return int(self.values.max(initial=-1)) + 1

    def problem(self, tokens: int, taken: TensorType) -> str | None:
        """Why it does not fit a prompt of so many tokens, or what the graph takes in under its name."""
        if len(self.values) != tokens:
            return f"has {len(self.values)} rows for a prompt of {tokens} tokens"
        return _unlike(self.values, taken, taken.dims[0] == "N")

    def key(self, place: int) -> bytes:
        """Bytes that tell one token's row from any other."""
        return self.then.encode() + _key(self.values[place])

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


@dataclass(frozen=True, slots=True, eq=False)
class PerPlace:
    """Rows for some tokens of the prompt, `values [F, ..]` at the ascending `places [F]`, such as features of pictures.

    A graph takes in those of a step's tokens under the input's name, behind a row of zeros, and under that name with
    `_row` the row of each token `[N]`: 0 for those that have none.
    """

    values: Array
    places: npt.NDArray[np.intp]

    def problem(self, tokens: int, taken: TensorType) -> str | None:
        """Why it does not fit a prompt of so many tokens, or what the graph takes in under its name."""
        places = self.places
        if len(places) != len(self.values):
            return f"has {len(places)} places for {len(self.values)} rows"
        if len(places) and not (places[0] >= 0 and places[-1] < tokens and (np.diff(places) > 0).all()):
            return f"has places that do not ascend within a prompt of {tokens} tokens"
        return _unlike(self.values, taken, taken.dims[0] != "N")

    def key(self, place: int) -> bytes:
        """Bytes that tell one token's row, or that it has none, from any other."""
        first, last = np.searchsorted(self.places, [place, place + 1])
        return _key(self.values[first:last])

    def cut(self, start: int, stop: int) -> tuple[Array, npt.NDArray[np.intp]]:
        """The rows of the tokens from `start` to `stop`, and their places counted from `start`."""
        first, last = np.searchsorted(self.places, [start, stop])
        return self.values[first:last], self.places[first:last] - start


TokenInput = PerToken | PerPlace


def _unlike(values: Array, taken: TensorType, kind: bool) -> str | None:
    """Why the graph does not take these; `kind` says whether it takes rows of this kind at all."""
    if kind and values.dtype.name == taken.dtype and values.shape[1:] == taken.dims[1:]:
        return None
    rows = "for each token" if taken.dims[0] == "N" else "for some tokens"
    return f"has {values.dtype} {list(values.shape)}, where the graph takes {taken}, rows {rows}"


def _key(rows: Array) -> bytes:
    return f"{rows.dtype.str}{rows.shape}".encode() + rows.tobytes()


def gather(inputs: Sequence[Mapping[str, TokenInput]], spans: Sequence[tuple[int, int]]) -> dict[str, Array]:
    """The inputs of a step, whose sequences bring the tokens of these spans; all have inputs of the same names."""
    return dict(pair for name in inputs[0] for pair in _gather(name, [each[name] for each in inputs], spans))


def _gather(name: str, inputs: Sequence[TokenInput], spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Array]]:
    if isinstance(inputs[0], PerToken):
        yield name, np.concatenate([each.cut(*span) for each, span in zip(inputs, spans, strict=True)])
        return
    rows: list[Array] = [np.zeros((1, *inputs[0].values.shape[1:]), inputs[0].values.dtype)]
    of_token = np.zeros(sum(stop - start for start, stop in spans), np.int32)
    count, token = 1, 0
    for each, (start, stop) in zip(inputs, spans, strict=True):
        assert isinstance(each, PerPlace)
        values, places = each.cut(start, stop)
        rows.append(values)
        of_token[token + places] = np.arange(count, count + len(places))
        count += len(places)
        token += stop - start
    yield name, np.concatenate(rows)
    yield f"{name}_row", of_token
