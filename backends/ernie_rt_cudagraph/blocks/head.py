"""`head`: a launch or three for few rows, eager's composites for more."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ernie_rt.contract import Node
from ernie_rt_cudagraph.kernels import head as kernels
from ernie_rt_cudagraph.kernels.linear import FEW_ROWS
from ernie_rt_eager import ops


@dataclass(slots=True)
class HeadOutput:
    """Where the head of recorded steps puts its logits, and whether it looks for the largest of them on the way, which
    is all that a greedy choice asks for."""

    logits: Tensor | None = None
    """Room for them `[rows, V]`, of which the first are written (None: new memory)."""
    known: Tensor | None = None
    """Among how many ids the largest is looked for `[L]`, from the first on (None: it is not)."""
    largest: Tensor | None = None
    """What the last head found, as `sampling.draw` takes it `[L, parts]` (None: it did not look)."""


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
    output: HeadOutput,
    pdl: bool = False,
) -> Tensor:
    """The block of this name."""
    if len(rows) <= FEW_ROWS:
        logits, output.largest = kernels.head(
            x, norm, weight, bias, rows, eps=eps, known=output.known, out=output.logits, pdl=pdl
        )
        return logits
    output.largest = None
    logits = ops.linear(ops.rms_norm(ops.take_rows(x, rows), norm, eps=eps), weight, bias).float()
    return logits if output.logits is None else output.logits[: len(rows)].copy_(logits)
