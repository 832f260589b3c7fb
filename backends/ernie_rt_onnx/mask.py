"""What an exported graph makes of its attention mask: any mask is honoured as it stands, or refused by a node's name.

A mask has a column for each token of the past and each new one, 0 where there is none: padding on either side, or gaps.
What is masked is not seen, and takes no position: the others come out as they do without it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx

from ernie_rt_onnx.attention import BATCHED, LAST, TOTAL
from ernie_rt_onnx.emitter import ELEMENT_TYPES, Emitter, Masked
from ernie_rt_onnx.genai import ATTENTION_MASK, INPUT_IDS

HIDDEN: Final = -3e4
"""Added to the score of a key that is not seen: float16 holds it, and its exponential is 0."""
ROWS_CHECK: Final = "attention_mask: a row for each sequence"
COLUMNS_CHECK: Final = "attention_mask: a column for each token of the past and each new one"
TOKENS_CHECK: Final = "attention_mask: a token in each row"
"""The names of the nodes that refuse a mask, which ONNX Runtime's error tells."""


def emit_mask(e: Emitter, past: str) -> None:
    """Write what attention needs of the mask `[B, T]` and `input_ids` `[B, S]`, and the graph's input `rows`.

    `past` is the past K `[B, K, T - S, D]` of a layer. `rows` `[B]`, whose logits are wanted, are those of each
    sequence's last new token; of one without a new token, the last column's.
    """
    zero, one = e.constant(0, np.int64), e.constant(1, np.int64)
    shape = e("Shape", INPUT_IDS)  # [B, S]
    batch, new = (e("Gather", shape, e.constant(axis, np.int64)) for axis in (0, 1))
    before = e("Gather", e("Shape", past), e.constant(2, np.int64))
    whole = e("Add", before, new)
    batches, news, befores, wholes = (e("Unsqueeze", size, e.integers(0)) for size in (batch, new, before, whole))
    e("Concat", shape, e.integers(-1), axis=0, out=BATCHED)
    e("Cast", whole, to=onnx.TensorProto.INT32, out=TOTAL)
    last = e("Cast", e("Sub", wholes, one), to=onnx.TensorProto.INT32)
    e("Expand", last, batches, out=LAST)

    mask, sizes = ATTENTION_MASK, e("Shape", ATTENTION_MASK)
    for axis, (wanted, check) in enumerate(((batches, ROWS_CHECK), (wholes, COLUMNS_CHECK))):
        places = e("Range", zero, e("Gather", sizes, e.constant(axis, np.int64)), one)
        mask = e("Gather", mask, e("Reshape", places, wanted, allowzero=1, out=check), axis=axis)
    seen = e("Cast", mask, to=onnx.TensorProto.BOOL)  # [B, T]
    ones = e("Cast", seen, to=onnx.TensorProto.INT64)
    # As many rows as have a token: another size, unless all have one.
    having = e("ReduceSum", e("ReduceMax", ones, e.integers(1), keepdims=0), keepdims=1)
    rows = e("Concat", having, wholes, axis=0)
    ones = e("Reshape", ones, rows, allowzero=1, out=TOKENS_CHECK)

    places = e("Max", e("Sub", e("CumSum", ones, one), one), zero)
    positions = e("Slice", places, befores, wholes, e.integers(1))  # [B, S]
    score = e("Where", seen, e.constant(0, np.float32), e.constant(HIDDEN, np.float32))
    score = e("Unsqueeze", e("Cast", score, to=ELEMENT_TYPES[e.dtype]), e.integers(1, 2))  # [B, 1, 1, T]
    bias = e("Expand", score, e("Concat", e.integers(1, 1), news, e.integers(1), axis=0))  # [B, 1, S, T]
    e.masked = Masked(positions, bias)

    columns = e("Range", one, e("Add", new, one), one)
    written = e("Mul", e("Slice", ones, befores, wholes, e.integers(1)), columns)  # [B, S]: a column's number, or 0
    latest = e("ReduceMax", written, e.integers(1), keepdims=0)
    latest = e("Sub", e("Where", e("Greater", latest, zero), latest, new), one)
    latest = e("Add", latest, e("Mul", e("Range", zero, batch, one), new))
    e("Cast", latest, to=onnx.TensorProto.INT32, out="rows")
