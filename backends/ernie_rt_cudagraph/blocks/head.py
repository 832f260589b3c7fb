"""`head`: a launch or three for few rows, eager's composites for more."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.kernels import head as kernels
from ernie_rt_cudagraph.kernels.linear import FEW_ROWS
from ernie_rt_eager import ops


@dataclass(slots=True)
class Largest:
    """Has the head look for the largest logits as it makes them, which is all that a greedy choice asks for."""

    known: Tensor | None = None
    """Among how many ids `[L]`, from the first on; None: it does not look."""
    found: Tensor | None = None
    """What the last head found, as `sampling.draw` takes it, `[L, parts]`; None where it did not look."""


def refusal(node: Node) -> str | None:
    """Why the kernels cannot run this node, or None: they take every width."""
    return None


def head(
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    *,
    eps: float,
    largest: Largest | None = None,
    pdl: bool = False,
) -> Tensor:
    """The block of this name."""
    known, found = None if largest is None else largest.known, None
    if len(rows) <= FEW_ROWS:
        logits, found = kernels.head(x, norm, weight, bias, rows, eps=eps, known=known, pdl=pdl)
    else:
        logits = ops.linear(ops.rms_norm(ops.take_rows(x, rows), norm, eps=eps), weight, bias).float()
    if largest is not None:
        largest.found = found
    return logits
