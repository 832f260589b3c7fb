"""The toy executable with eyes: what it says depends on positions and features too, which its graph `vision` makes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from ernie_rt.contract import Step, StepResult
from ernie_rt.errors import PromptError
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import TensorType
from ernie_rt.modeling.ernie45 import INDEX_INPUTS
from ernie_rt.runtime.inputs import Array, PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from support.toy import VOCAB, DeepToyExecutable, ToyPending

FRAME: Final = 3
"""Tokens of a frame."""
PLACEHOLDER: Final = VOCAB - 1


class Sketch:
    """Frames of `FRAME` numbers each: a token a number."""

    def __init__(self, numbers: Sequence[int]) -> None:
        assert len(numbers) % FRAME == 0
        self.numbers = tuple(numbers)
        self.tokens = len(numbers)
        self.digest = hashlib.sha256(repr(self.numbers).encode()).digest()
        self.broken: Exception | None = None

    def pieces(self, max_patches: int) -> Iterator[dict[str, Array]]:
        if max_patches < FRAME:
            raise PromptError(f"frames of {FRAME} patches", expected=f"at most {max_patches}")
        size = max_patches // FRAME * FRAME
        return (self._piece(self.numbers[start : start + size]) for start in range(0, self.tokens, size))

    def _piece(self, numbers: Sequence[int]) -> dict[str, Array]:
        if self.broken is not None:
            raise self.broken
        frame = np.arange(len(numbers), dtype=np.int32) // FRAME
        return {"patches": np.array(numbers, np.float32)[:, None], "frame": frame}


def graphs() -> dict[str, Graph]:
    """What the toy would be compiled from: inputs alone are of any meaning."""
    main, vision = Builder(), Builder()
    for name, dims in INDEX_INPUTS:
        main.input(name, TensorType("int32", ("N", 3) if name == "positions" else dims))
    features = main.input("features", TensorType("bfloat16", ("F", 2)))
    main.input("features_row", TensorType("int32", ("N",)))
    patches = vision.input("patches", TensorType("float32", ("S", 1)))
    vision.input("frame", TensorType("int32", ("S",)))
    return {
        "main": main.finish("main", {"logits": main("cast", features, dtype="float32")}),
        "vision": vision.finish("vision", {"features": vision("cast", patches, dtype="bfloat16")}),
    }


def encode(patches: Array, frame: Array) -> Array:
    """Features `[S, 2]` that bfloat16 holds: of each number, and of all in its frame."""
    sums = np.array([patches[frame == each].sum() for each in frame])
    return np.stack([patches[:, 0], sums % 251], axis=1).astype(np.float32)


def mixed(ids: Array, positions: Array, features: Array) -> Array:
    """A number for each token, of all that it brings."""
    number: Array = ids + positions @ np.array([13, 29, 31]) + (features @ np.array([977, 1999])).astype(np.int64)
    return number


def said(request: Request, max_new_tokens: int) -> list[int]:
    """The answer that a request must get."""
    ids = list(request.ids)
    features = np.zeros((len(ids) + max_new_tokens, 2), np.float32)
    for placed in request.items:
        assert isinstance(placed.item, Sketch)
        features[placed.start : placed.stop] = np.concatenate([encode(**piece) for piece in placed.item.pieces(FRAME)])
    given = request.inputs.get("positions", PerToken.places(len(ids), TensorType("int32", ("N", 3))))
    positions, state = given.cut(0, len(features)), 0
    for place, beside in enumerate(mixed(np.zeros(len(features), np.int64), positions, features).tolist()):
        if place >= len(ids):
            ids.append(state % VOCAB)
        state = (state * 31 + ids[place] + beside + 1) % 1_000_003
    return ids[len(request.ids) :]


def shown(*parts: int | Sketch, new: int = 4, **fields: Any) -> Request:
    """A prompt of ids and sketches, whose tokens have the positions of a picture as tall as it has frames."""
    ids: list[int] = []
    items: list[PlacedItem] = []
    rows: list[tuple[int, int, int]] = []
    free = 0
    for part in parts:
        if isinstance(part, int):
            ids.append(part)
            rows.append((free, free, free))
            free += 1
            continue
        items.append(PlacedItem(len(ids), part))
        ids += [PLACEHOLDER] * part.tokens
        rows += [(free, free + n // FRAME, free + n % FRAME) for n in range(part.tokens)]
        free += max(FRAME, part.tokens // FRAME)
    positions = PerToken(np.array(rows, np.int32), "count")
    return Request(tuple(ids), new, inputs={"positions": positions}, items=tuple(items), **fields)


class SeeingToyExecutable(DeepToyExecutable):
    """Checks that what a step brings beside ids is in order."""

    def submit(self, step: Step) -> ToyPending:
        if step.graph == "main":
            return super().submit(step)
        assert step.graph == "vision" and not len(step.ids) and not len(step.past)
        self.stumble("submit")
        self.steps.append(step)
        error = self.errors.pop("result", None)
        return ToyPending(self, len(self.steps) - 1, StepResult(taps={"features": encode(**step.extra)}), error)

    @property
    def encoded(self) -> list[int]:
        """The patches of each vision step."""
        return [len(step.extra["patches"]) for step in self.steps if step.graph == "vision"]

    def write(self, step: Step, ids: Array) -> None:
        features, row = step.extra["features"], step.extra["features_row"]
        assert features.dtype == np.float32 and not features[0].any()
        assert row[row > 0].tolist() == list(range(1, len(features)))
        super().write(step, mixed(ids, step.extra["positions"], features[row]))
