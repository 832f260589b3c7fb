"""Numbers as integers that are in the same order, so that they can be ranked with their ids and split by their bits."""

from __future__ import annotations

import triton
import triton.language as tl

NOTHING = tl.constexpr(-(2**63))
"""Ranked below everything; the number that it holds is NaN."""
LAST_ID = tl.constexpr(2**31 - 1)
"""Ids count down from it, for the lowest to rank highest: `id ^ LAST_ID`."""


@triton.jit
def ordered(x):
    """float32 as int32 that compare as the numbers do; both zeros are equal, and NaN is above infinity."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(x == x, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FFFFFFF)


@triton.jit
def number(keys):
    """What `ordered` was made of."""
    return (keys ^ ((keys >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def ranked(x, ids):
    """A number and its id in one int64; the largest is that of the largest number, of the lowest id among equals."""
    return (ordered(x).to(tl.int64) << 32) | (ids ^ LAST_ID).to(tl.int64)


@triton.jit
def ranked_number(rank):
    return number((rank >> 32).to(tl.int32))


@triton.jit
def ranked_id(rank):
    return (rank & LAST_ID).to(tl.int32) ^ LAST_ID
