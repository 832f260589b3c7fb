"""What the oracle takes in of pictures and videos: features by its own arithmetic, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.conformance.oracle import Load, Walk
from ernie_rt.contract.protocols import MAX_PATCHES, OpNumerics
from ernie_rt.contract.step import Step
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType
from ernie_rt.modeling.graphs import VISION
from ernie_rt.runtime.items import FEATURES, FEATURES_ROW, Encodable, PlacedItem

Array = npt.NDArray[Any]


def features_of(
    vision: Graph, items: Sequence[Encodable], load: Load, dtype: DType, numerics: Callable[[str], OpNumerics] | None
) -> list[Array]:
    """Of each item, `[tokens, H]`: in float64, or with the rounding of some numerics."""
    walk, found = Walk(vision, load, 0, dtype, numerics), []
    for item in items:
        pieces = [Step.without_tokens(VISION, piece) for piece in item.pieces(MAX_PATCHES)]
        outputs = [walk.run(step.inputs(vision), step.bindings(vision)).outputs[FEATURES] for step in pieces]
        found.append(np.concatenate(outputs))
    return found


def fed(step: Step, shown: Sequence[Sequence[PlacedItem]], features: Sequence[Array], hidden: int) -> dict[str, Array]:
    """What `main` takes in of the features of all items, one after the other; `shown` are those of each sequence, whose
    tokens the step brings whole."""
    rows, count = np.zeros(len(step.ids), np.int32), 1  # behind a row of zeros
    for start, items in zip(step.query_start.tolist(), shown, strict=False):
        for placed in items:
            rows[start + placed.start : start + placed.stop] = np.arange(count, count + placed.item.tokens)
            count += placed.item.tokens
    return {FEATURES: np.concatenate([np.zeros((1, hidden)), *features]), FEATURES_ROW: rows}
