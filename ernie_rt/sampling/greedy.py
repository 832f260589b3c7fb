"""Greedy choice: the largest logit, the lowest id among equals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import BackendError


def greedy(logits: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The token of each row of `logits [L, V]`; BackendError when a row holds NaN."""
    tokens: npt.NDArray[np.int32] = np.argmax(logits, axis=-1).astype(np.int32)
    # argmax returns the first NaN of a row that has one.
    if np.isnan(logits[np.arange(len(tokens)), tokens]).any():
        raise BackendError("the logits hold NaN", hint="Run the same prompt with `--backend reference` to compare")
    return tokens
