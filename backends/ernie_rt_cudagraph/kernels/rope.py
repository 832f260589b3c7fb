"""The rows of cos and sin of a model whose positions have several columns."""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from ernie_rt_cudagraph.kernels.language import release, wait
from ernie_rt_cudagraph.launch import launch

ROWS: Final = 16
"""How many tokens a program serves."""


@triton.jit
def rope_rows_kernel(
    table, positions, out, N,
    COLUMNS: tl.constexpr, OF_POSITION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out `[N, D/2]` of `table [P, D/2]` and `positions [N, OF_POSITION]`: number d stands in the row that column
    COLUMNS[d] says. WIDTH is D/2, padded to a power of two."""
    HALF: tl.constexpr = len(COLUMNS)
    d = tl.arange(0, WIDTH)
    column = tl.zeros((WIDTH,), tl.int32)
    for i in tl.static_range(HALF):
        column = tl.where(d == i, COLUMNS[i], column)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < N)[:, None] & (d < HALF)
    wait(PDL)
    release(PDL)
    at = tl.load(positions + row[:, None] * OF_POSITION + column, mask=inside, other=0)  # [ROWS, WIDTH]
    tl.store(out + row[:, None] * HALF + d, tl.load(table + at * HALF + d, mask=inside), mask=inside)


def rope_rows(table: Tensor, positions: Tensor, *, columns: tuple[int, ...], pdl: bool = False) -> Tensor:
    """The composite of this name. PyTorch would send the columns to the device, for which the host waits."""
    n, of_position = positions.shape
    out = table.new_empty(n, len(columns))
    launch(
        rope_rows_kernel, (triton.cdiv(n, ROWS),), num_warps=4,
        table=table, positions=positions, out=out, N=n, COLUMNS=columns, OF_POSITION=of_position, ROWS=ROWS,
        WIDTH=triton.next_power_of_2(len(columns)), PDL=pdl,
    )  # fmt: skip
    return out
