"""How attention is said in ONNX: over the slots of a cache, or of the tokens of a step among themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from onnx import TensorProto, helper

from ernie_rt.contract import Operand, State, Value
from ernie_rt_onnx.emitter import ELEMENT_TYPES, Emitter
from ernie_rt_onnx.functions import DOMAIN
from ernie_rt_onnx.genai import PAST_KEY, PAST_VALUE, PRESENT_KEY, PRESENT_VALUE

BATCHED: Final = "batched"
"""An input int64 [3]: B, S, -1, what `[N, ..]` becomes for attention."""
LAST: Final = "last"
"""An input int32 [B]: the place of each sequence's last token."""
TOTAL: Final = "total"
"""An input int32 []: the length of the longest sequence."""


def rope_attention(
    e: Emitter,
    qkv: Operand,
    cos: Operand,
    sin: Operand,
    state: Operand,
    positions: Operand,
    sequence: Operand,
    *indices: Operand,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    out: str,
) -> None:
    heads = (num_heads, num_kv_heads, head_dim)
    if state is None:
        one = e("Unsqueeze", e.name(qkv), e.integers(0))
        rows = _turned(e, one, _by_rows(e, cos, sin, e.integers(1, -1, head_dim // 2)), *heads, out)
        attend_among_themselves(e, rows, sequence, num_heads, head_dim, scale, out)
        return
    if e.with_library:
        attend_in_place(e, e.name(qkv), cos, sin, state, positions, num_heads, num_kv_heads, scale, out)
        return
    rows = (e("Reshape", e.name(qkv), BATCHED), "", "")
    tables: tuple[str, ...] = ()
    if positions is None:
        rows = _turned(e, rows[0], _by_rows(e, cos, sin, BATCHED), *heads, out)
    elif e.masked is not None:
        # Of a prompt without a past, GroupQueryAttention counts all tokens, whatever it is told.
        rows = _turned(e, rows[0], _by_positions(e, cos, sin, e.masked.positions), *heads, out)
    else:
        tables = (e.rotation(cos), e.rotation(sin))
    _attend(e, rows, state, tables, *heads, scale, out)


def attend_in_place(
    e: Emitter,
    qkv: str,
    cos: Operand,
    sin: Operand,
    state: Operand,
    positions: Operand,
    heads: int,
    kv_heads: int,
    scale: float,
    out: str,
) -> str:
    """The library's attention, which writes the cache that it is given."""
    assert isinstance(state, State)
    past, present = ([name(state, part) for part in ("k", "v")] for name in (past_name, present_name))
    tables = (e.name(cos), e.name(sin)) if positions is None else (e.rotation(cos), e.rotation(sin))
    places = ("", "", *past, LAST, *tables) if positions is None else (*tables, *past, LAST)
    e.multi(
        "RopeAttention", qkv, *places, outputs=(out, *present),
        domain=DOMAIN, num_heads=heads, num_kv_heads=kv_heads, scale=scale,
    )  # fmt: skip
    return out


def attention(
    e: Emitter,
    q: Operand,
    k: Operand,
    v: Operand,
    state: Operand,
    sequence: Operand,
    *indices: Operand,
    scale: float,
    out: str,
) -> None:
    assert isinstance(q, Value) and isinstance(k, Value)
    (_, heads, size), (_, kv_heads, _) = q.type.dims, k.type.dims
    assert isinstance(heads, int) and isinstance(kv_heads, int) and isinstance(size, int)
    if state is None:
        one = e.integers(1, -1, heads * size)
        rows = tuple(e("Reshape", e.name(each), one) for each in (q, k, v))
        attend_among_themselves(e, rows, sequence, heads, size, scale, out)
    else:
        rows = tuple(e("Reshape", e.name(each), BATCHED) for each in (q, k, v))
        _attend(e, rows, state, (), heads, kv_heads, size, scale, out)


def _turned(
    e: Emitter, qkv: str, turn: Callable[..., str], heads: int, kv_heads: int, size: int, out: str
) -> tuple[str, ...]:
    """Queries and keys, rotated, and values, of `[B, S, (Q + 2K)·D]`."""
    q, k, v = (f"{out}.{part}" for part in "qkv")
    e.multi("Split", qkv, e.integers(heads * size, kv_heads * size, kv_heads * size), outputs=(q, k, v), axis=-1)
    return turn(q, num_heads=heads), turn(k, num_heads=kv_heads), v


def _by_positions(e: Emitter, cos: Operand, sin: Operand, positions: str) -> Callable[..., str]:
    """Rotates by the rows of tables at positions `[B, S]`."""
    tables = (e.rotation(cos), e.rotation(sin))

    def turn(x: str, *, num_heads: int) -> str:
        return e("RotaryEmbedding", x, positions, *tables, domain="com.microsoft", interleaved=1)

    return turn


def _by_rows(e: Emitter, cos: Operand, sin: Operand, dims: str) -> Callable[..., str]:
    """Rotates by cos and sin of each token, which lie as `dims` says."""
    rows = (e("Reshape", e.name(each), dims) for each in (cos, sin))
    tables = tuple(e("Cast", each, to=ELEMENT_TYPES[e.dtype]) for each in rows)

    def turn(x: str, *, num_heads: int) -> str:
        return e("RotaryEmbedding", x, *tables, num_heads=num_heads, interleaved=1)

    return turn


def _attend(
    e: Emitter,
    rows: tuple[str, ...],
    state: Operand,
    tables: tuple[str, ...],
    heads: int,
    kv_heads: int,
    size: int,
    scale: float,
    out: str,
) -> None:
    """GroupQueryAttention over the slots of a state, which it writes as well; with tables it rotates adjacent pairs.

    A masked one has its mask beside it, and no tables.
    """
    assert isinstance(state, State)
    result = f"{out}.batched"
    further = tables if e.masked is None else ("", "", "", e.masked.bias)
    e.multi(
        "GroupQueryAttention", *rows, past_name(state, "k"), past_name(state, "v"), LAST, TOTAL, *further,
        outputs=(result, present_name(state, "k"), present_name(state, "v")),
        num_heads=heads, kv_num_heads=kv_heads, scale=scale, do_rotary=int(bool(tables)), rotary_interleaved=1,
    )  # fmt: skip
    e("Reshape", result, e.integers(-1, heads * size), out=out)


def attend_among_themselves(
    e: Emitter, rows: tuple[str, ...], sequence: Operand, heads: int, size: int, scale: float, out: str
) -> None:
    """Queries, keys and values `[1, N, Q·D]`, one sequence after the other: where nothing is masked, MultiHeadAttention
    keeps no scores."""
    bounds = e.once(f"{e.name(sequence)}.bounds", partial(_bounds, e, e.name(sequence)))
    count = e("Sub", e("Size", bounds), e.constant(1, np.int64))
    nothing = e("Slice", rows[0], e.integers(0), e.integers(0), e.integers(1))
    place, going, before, after, still = (f"{out}.{name}" for name in ("place", "going", "before", "after", "still"))
    one = e.body()
    at = one("Reshape", place, one.integers(1), out=f"{out}.at")
    first = one("Gather", bounds, at, out=f"{out}.first")
    last = one("Gather", bounds, one("Add", at, one.integers(1), out=f"{out}.next"), out=f"{out}.last")
    parts = [
        one("Slice", each, first, last, one.integers(1), out=f"{out}.one.{part}")
        for part, each in zip("qkv", rows, strict=True)
    ]
    attended = one("MultiHeadAttention", *parts, num_heads=heads, scale=scale, out=f"{out}.one")
    one("Concat", before, attended, axis=1, out=after)
    one("Identity", going, out=still)
    kind = ELEMENT_TYPES[e.dtype]
    body = helper.make_graph(
        one.nodes,
        f"{out}.body",
        [
            helper.make_tensor_value_info(place, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            helper.make_tensor_value_info(before, kind, None),
        ],
        [
            helper.make_tensor_value_info(still, TensorProto.BOOL, []),
            helper.make_tensor_value_info(after, kind, None),
        ],
    )
    whole = e("Loop", count, "", nothing, body=body)
    e("Reshape", whole, e.integers(-1, heads * size), out=out)


def _bounds(e: Emitter, sequence: str, out: str) -> str:
    """Where each sequence begins among the tokens, and where the last one ends: int64, one more than there are."""
    zero, one, last = e.integers(0), e.integers(1), e.integers(-1)
    end = e("Shape", sequence)
    same = e("Equal", e("Slice", sequence, zero, last), e("Slice", sequence, one, end))
    begins = e("Add", e("Reshape", e("NonZero", e("Not", same)), last), one)
    return e("Concat", zero, begins, end, axis=0, out=out)


def past_name(state: State, part: str) -> str:
    """The graph's input for K or V of a layer."""
    return (PAST_KEY if part == "k" else PAST_VALUE).replace("%d", _number_of(state))


def present_name(state: State, part: str) -> str:
    """The output that goes to the same place."""
    return (PRESENT_KEY if part == "k" else PRESENT_VALUE).replace("%d", _number_of(state))


def _number_of(state: State) -> str:
    """`3` of `layers.3.kv`; a state of no layer keeps its name."""
    return state.name.removeprefix("layers.").removesuffix(".kv")
