"""What a step of decodes says to kernels, in buffers that keep their places on the device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Decodes:
    """The new tokens of a step that brings one for each sequence, as attention over the cache reads it; all int32.

    Rows from a step's last one to the end of the buffers are padding: their `index` is -1.
    """

    index: Tensor
    """The causal place of each new token in its sequence `[N]`."""
    seat: Tensor
    """The row of `tables` that is its sequence's `[N]`."""
    tables: Tensor
    """The pages of each seat `[S + 1, P]`; the last row is for padding."""
    page_size: int
