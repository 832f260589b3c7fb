"""The suite sees what is wrong with a backend, each thing at the level that is there to see it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ernie_rt.conformance import Expectations, Features, Suite
from ernie_rt.conformance.oracle import Route
from ernie_rt.conformance.report import BAD
from ernie_rt.contract import Step, Weight, WeightSource
from ernie_rt.reference.ops import (
    MEANINGS,
    attention,
    moe_experts,
    moe_route,
    rms_norm,
    rope_attention,
    sigmoid,
    softmax,
    where,
)
from support.mutants import (
    BlocksBackend,
    Mutant,
    NumpyBackend,
    RoundedBackend,
    blocks,
    drawn,
    eager,
    host_of,
    sampling,
    unpacked,
)

Function = Callable[..., Any]


def instead(function: Function) -> Callable[[Function], Function]:
    """Another function, whatever it was before."""
    return lambda _: function


def given(**changed: Any) -> Callable[[Function], Function]:
    """The same function with other attributes."""
    return lambda function: lambda *args, **attrs: function(*args, **attrs | changed)


def after(change: Function) -> Callable[[Function], Function]:
    return lambda function: lambda *args, **attrs: change(function(*args, **attrs))


def router(
    score: Function = softmax, *, bias: bool = True, weigh: bool = False, normalise: bool = True, floor: bool = True
) -> Callable[[Function], Function]:
    """The router with one thing wrong."""

    def route(x: Any, gate: Any, correction: Any = None, *, top_k: int, norm_min: float) -> Any:
        probabilities = score(x @ gate.T)
        scores = probabilities + correction if bias and correction is not None else probabilities
        ids = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k].astype(np.int32)
        chosen = np.take_along_axis(scores if weigh else probabilities, ids, -1)
        total = np.maximum(chosen.sum(-1, keepdims=True), norm_min if floor else 0.0)
        return ids, chosen / total if normalise else chosen

    return instead(route)


def narrow_router(x: Any, gate: Any, correction: Any = None, *, top_k: int, norm_min: float) -> Any:
    probabilities = F.linear(x.bfloat16(), gate.bfloat16()).float().softmax(-1)
    scores = probabilities if correction is None else probabilities + correction
    ids = scores.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    chosen = probabilities.gather(-1, ids)
    return ids, (chosen / chosen.sum(-1, keepdim=True).clamp_min(norm_min)).to(x.dtype)


def last_of_ties(x: Any, gate: Any, correction: Any = None, *, top_k: int, norm_min: float) -> Any:
    flipped = None if correction is None else correction[::-1]
    ids, weights = moe_route(x, gate[::-1], flipped, top_k=top_k, norm_min=norm_min)
    return len(gate) - 1 - ids, weights


def attending(
    *,
    mask: int = 0,
    read: int = 0,
    heads: bool = True,
    numerator: bool = True,
    window: int = 10**6,
    across: bool = False,
    axis: int = -1,
) -> Callable[[Function], Function]:
    """Attention with one thing wrong: the causal mask shifted, context rows shifted, kv heads dealt in turn, …"""

    def attention(
        q: Any, k: Any, v: Any, state: Any, sequence: Any, index: Any, write: Any, context: Any, of: Any, at: Any,
        *, scale: float,
    ) -> Any:  # fmt: skip
        state[write, 0], state[write, 1] = k, v
        context = (context + read) % len(state)
        keys, values = state[context, 0], state[context, 1]
        visible = (at[None] <= index[:, None] + mask) & (at[None] > index[:, None] - window)
        visible &= across | (of[None] == sequence[:, None])
        share, out = q.shape[1] // k.shape[1], np.empty_like(q)
        for head in range(q.shape[1]):
            group = head // share if heads else head % k.shape[1]
            scores = np.where(visible, q[:, head] @ keys[:, group].T * np.float32(scale), -np.inf)
            with np.errstate(all="ignore"):
                e = np.exp(scores - (scores.max(axis, keepdims=True) if numerator else 0))
                out[:, head] = np.nan_to_num(e / e.sum(axis, keepdims=True)) @ values[:, group]
        return out.reshape(len(q), -1)

    def mutated(function: Function) -> Function:
        def roped(qkv: Any, cos: Any, sin: Any, state: Any, positions: Any, *rest: Any, **attrs: Any) -> Any:
            if state is None:  # of tokens that have no other context than one another
                return function(qkv, cos, sin, state, positions, *rest, **attrs)
            q, k, v = split(qkv, **attrs)
            c, s = (cos, sin) if positions is None else (cos[positions[:, 0]], sin[positions[:, 0]])
            return attention(adjacent(q, c, s), adjacent(k, c, s), v, state, *rest, scale=attrs["scale"])

        return roped

    return mutated


def split(qkv: Any, *, num_heads: int, num_kv_heads: int, head_dim: int, scale: float) -> list[Any]:
    return np.split(qkv.reshape(len(qkv), -1, head_dim), [num_heads, num_heads + num_kv_heads], axis=1)


def adjacent(x: Any, cos: Any, sin: Any) -> Any:
    even, odd, c, s = x[..., 0::2], x[..., 1::2], cos[:, None], sin[:, None]
    return np.stack([even * c - odd * s, odd * c + even * s], -1).reshape(x.shape)


def rotated(turn: Function) -> Callable[[Function], Function]:
    """`turn(qkv heads, cos, sin, positions)` gives tables and positions; or changes the order of the numbers."""

    def attend(qkv: Any, cos: Any, sin: Any, state: Any, positions: Any, *rest: Any, **attrs: Any) -> Any:
        if positions is not None:  # otherwise the tables have a row for each token
            cos, sin, positions = turn(cos, sin, positions)
        return rope_attention(qkv, cos, sin, state, positions, *rest, **attrs)

    return instead(attend)


def halves(qkv: Any, *args: Any, **attrs: Any) -> Any:
    """Rotate (i, i + D/2): the same as adjacent pairs of numbers in another order, which scores do not see in v."""
    size = attrs["head_dim"]
    order = np.arange(size).reshape(2, -1).T.ravel()
    heads = qkv.reshape(len(qkv), -1, size).copy()
    both = attrs["num_heads"] + attrs["num_kv_heads"]
    heads[:, :both] = heads[:, :both][..., order]
    return rope_attention(heads.reshape(qkv.shape), *args, **attrs)


def theta(cos: Any, sin: Any, positions: Any) -> Any:
    half = cos.shape[1]
    angles = np.arange(len(cos))[:, None] * 505000.0 ** (-np.arange(half) / half)
    return np.cos(angles).astype(cos.dtype), np.sin(angles).astype(sin.dtype), positions


def written_once(*args: Any, **attrs: Any) -> Any:
    """A row that holds something is not written again: right until a sequence gets the rows of another."""
    state, write = args[3], args[7]
    kept = np.abs(state[write]).sum(axis=(1, 2, 3)) > 0
    held = state[write][kept].copy()
    out = rope_attention(*args, **attrs)
    if not kept.any():
        return out
    state[write[kept]] = held
    positions, queries, rows = args[4][:, 0], split(args[0], **attrs)[0], state[write]
    return attention(
        adjacent(queries, args[1][positions], args[2][positions]), rows[:, 0], rows[:, 1], state, *args[5:],
        scale=attrs["scale"],
    )  # fmt: skip


def none_is_the_last(x: Any, ids: Any, *rest: Any, **attrs: Any) -> Any:
    return moe_experts(x, ids % len(rest[1]), *rest, **attrs)


def no_shared(x: Any, norm: Any, gate: Any, bias: Any, up: Any, down: Any, *_: Any, eps: float, **attrs: Any) -> Any:
    y = rms_norm(x, norm, eps=eps)
    return x + moe_experts(y, *moe_route(y, gate, bias, **attrs), up, down, top_k=attrs["top_k"])


def neighbours(function: Function) -> Function:
    return lambda x, ids, *rest, **attrs: function(x, (ids + 1) % len(rest[1]), *rest, **attrs)


def unweighted(function: Function) -> Function:
    return lambda x, weight, **attrs: function(x, weight * 0 + 1, **attrs)


def narrow_products(function: Function) -> Function:
    return lambda *args: function(*(None if a is None else a.bfloat16() for a in args)).float()


def gelu_for_silu(x: Any) -> Any:
    gate = x[..., 0]
    return gate * sigmoid(1.702 * gate) * x[..., 1]


def deviations(*, inside: bool = True, sample: bool = False) -> Callable[[Function], Function]:
    """Layer norms with eps beside the root of the variance, or with the variance of a sample."""

    def norm(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        deviation = x.std(-1, keepdims=True, ddof=int(sample))
        scale = np.sqrt(deviation**2 + eps) if inside else deviation + eps
        return (x - x.mean(-1, keepdims=True)) / scale * weight + bias

    return instead(norm)


def of_frames(change: Function) -> Callable[[Function], Function]:
    """Attention without a state on what `change(sequence, index)` makes of these."""

    def mutated(function: Function) -> Function:
        def attend(*args: Any, **attrs: Any) -> Any:
            *first, sequence, index, write, context, of, at = args
            if write is None:
                sequence, index = change(sequence, index)
            return function(*first, sequence, index, write, context, of, at, **attrs)

        return attend

    return mutated


def without_mask(function: Function) -> Function:
    return lambda *args, **attrs: function(*args[:5], **attrs)


def without_none(mask: Any, x: Any, *, otherwise: float) -> Any:
    """Integers are as they are wherever the mask is false."""
    return x if x.dtype.kind == "i" else where(mask, x, otherwise=otherwise)


def pools(change: Function) -> Callable[[Function], Function]:
    """`change(first pool, second pool)` of the operands of `moe_block`: masks, gates, biases, and two matrices each."""

    def mutated(function: Function) -> Function:
        def block(x: Any, norm: Any, *args: Any, **attrs: Any) -> Any:
            first, shared, second = args[:4], args[4:8], args[8:]
            if second[0] is None:
                return function(x, norm, *args, **attrs)
            (mask, *first), (vision_mask, *second) = change((second[0], *first), second[1:])
            return function(x, norm, *first, *shared, mask, vision_mask, *second, **attrs)

        return block

    return mutated


def mirrored(function: Function) -> Function:
    return lambda table, positions, **attrs: function(table, positions[:, ::-1], **attrs)


def one_late(function: Function) -> Function:
    def embed(ids: Any, table: Any, features: Any = None, row: Any = None) -> Any:
        return function(ids, table, features, None if row is None else np.maximum(row - 1, 0))

    return embed


def without_bias(function: Function) -> Function:
    return lambda x, weight, bias=None: function(x, weight)


def mixed_up(step: Step, logits: Any) -> Any:
    """The rows of a step of three sequences or more come in the wrong order."""
    return logits[::-1] if len(step.new) > 2 and len(logits) > 2 else logits


def few_rows(step: Step, logits: Any) -> Any:
    """Right when the logits of all tokens are wanted, and of the wrong tokens when they are not."""
    return logits if len(step.rows) == len(step.ids) else logits[:, ::-1]


def no_empty_head(x: Any, norm: Any, weight: Any, bias: Any, rows: Any, *, eps: float) -> Any:
    if not len(rows):
        raise RuntimeError("a launch of size 0")
    return MEANINGS["head"](x, norm, weight, bias, rows, eps=eps)


def half_a_vocabulary(step: Step, logits: Any) -> Any:
    """The argmax by itself, without logits, forgets the end of the vocabulary."""
    return (logits if len(step.fetch) else logits[:, :48]).argmax(-1)


def up_to(rows: int | None = None, columns: int | None = None) -> Callable[[Function], Function]:
    """Tiles beyond these are forgotten."""

    def change(y: Any) -> Any:
        y = y.copy()
        y[len(y) if rows is None else rows :] = 0
        y[:, y.shape[1] if columns is None else columns :] = 0
        return y

    return after(change)


def first_sequences(function: Function) -> Function:
    """All but four sequences of a step are forgotten."""

    def attend(*args: Any, **attrs: Any) -> Any:
        return np.where(args[5][:, None] < 4, function(*args, **attrs), 0)  # the sequence of each token

    return attend


def narrow_heads(function: Function) -> Function:
    return lambda *args, **attrs: function(*args, **attrs) * (attrs["head_dim"] < 128)


def few_heads_a_group(function: Function) -> Function:
    return lambda *args, **attrs: function(*args, **attrs) * (attrs["num_heads"] < 4 * attrs["num_kv_heads"])


def few_experts(x: Any, ids: Any, weights: Any, *rest: Any, **attrs: Any) -> Any:
    return moe_experts(x, ids, np.where(ids < 32, weights, 0), *rest, **attrs)


def four_experts(x: Any, ids: Any, weights: Any, *rest: Any, **attrs: Any) -> Any:
    return moe_experts(x, ids, weights * (np.arange(ids.shape[1]) < 4), *rest, **attrs)


class OneDigit:
    """A WeightSource that takes `layers.12` for `layers.1`."""

    def __init__(self, inner: WeightSource) -> None:
        self.inner = inner

    def fill(self, weight: Weight, part: str, out: np.ndarray, index: tuple[int, ...] = ()) -> None:
        self.inner.fill(replace(weight, name=re.sub(r"^(layers\.\d)\d", r"\1", weight.name)), part, out, index)

    def close(self) -> None:
        self.inner.close()


def one_digit(backend: NumpyBackend, lowerings: Any, weights: WeightSource, *rest: Any) -> Any:
    return NumpyBackend.compile(backend, lowerings, OneDigit(weights), *rest)


def rows_out(change: Function) -> Function:
    """A backend that hands out other rows of its cache than it has."""

    def compiled(backend: NumpyBackend, *args: Any) -> Any:
        executable = NumpyBackend.compile(backend, *args)
        read = executable.read_rows
        executable.read_rows = lambda rows: change(read, rows)  # type: ignore[method-assign]
        return executable

    return compiled


def no_last_layer(read: Function, rows: np.ndarray) -> np.ndarray:
    data = read(rows).copy()
    data[:, data.shape[1] * 3 // 4 :] = 0
    return data


def as_ever(backend: Any, lowerings: Any, weights: WeightSource, target: Any, limits: Any) -> Any:
    return eager().compile(backend, lowerings, weights, replace(target, deterministic=False), limits)


def table_without_end(cos: Any, sin: Any, positions: Any) -> Any:
    return cos, sin, np.minimum(positions, len(cos) - 2)


def five_tokens(function: Function) -> Function:
    return lambda x, *rest, **attrs: function(x, *rest, **attrs) * (1.01 if len(x) == 5 else 1)


def torch_theta(function: Function) -> Function:
    def attend(qkv: Any, cos: Any, sin: Any, *rest: Any, **attrs: Any) -> Any:
        half = cos.shape[1]
        angles = torch.arange(len(cos))[:, None] * 505000.0 ** (-torch.arange(half) / half)
        return function(qkv, angles.cos(), angles.sin(), *rest, **attrs)

    return attend


def second_best(step: Step, logits: Any) -> Any:
    return np.argsort(-logits, axis=-1)[:, 1]


def penalised(step: Step, logits: Any) -> Any:
    """Every tenth token is slightly disliked."""
    return (logits - 0.5 * (np.arange(logits.shape[-1]) % 10 == 7)).argmax(-1)


def late_queries(qkv: Any, cos: Any, sin: Any, state: Any, positions: Any, *rest: Any, **attrs: Any) -> Any:
    """Queries stand one position behind where they are."""
    q, k, v = split(qkv, **attrs)
    late, place = np.maximum(positions[:, 0] - 1, 0), positions[:, 0]
    turned = adjacent(q, cos[late], sin[late]), adjacent(k, cos[place], sin[place])
    return attention(*turned, v, state, *rest, scale=attrs["scale"])


def chunk_positions(function: Function) -> Function:
    """Positions count from the first token of the step."""

    def attend(qkv: Any, cos: Any, sin: Any, state: Any, positions: Any, *rest: Any, **attrs: Any) -> Any:
        return function(qkv, cos, sin, state, positions - positions.min(), *rest, **attrs)

    return attend


def endless(step: Step, logits: Any) -> Any:
    return np.where(np.arange(logits.shape[1]) == 2, -np.inf, logits).argmax(-1)


def now_and_then(step: Step, logits: Any) -> Any:
    """In about one row of 300 the second best token."""
    best = np.argsort(-logits, axis=-1)
    return np.where(logits[:, 0].view(np.uint32) % 300 == 7, best[:, 1], best[:, 0])


def packed() -> type:
    return BlocksBackend


def swapped(codes: Any, scales: Any, storage: Any) -> Any:
    return unpacked(codes % 16 * 16 + codes // 16, scales, storage)


def off_by_one(codes: Any, scales: Any, storage: Any) -> Any:
    return unpacked(codes, scales, storage) + scales.reshape(-1, 1)


def one_expert_off(zero: int) -> Function:
    """Another zero in one expert, whose weights are of `[E, I, 2, ..]` and `[E, H, ..]`."""

    def read(codes: Any, scales: Any, storage: Any) -> Any:
        numbers = unpacked(codes, scales, storage)
        if codes.ndim == 4 or (codes.ndim == 3 and codes.shape[1] > 2):
            experts = numbers.reshape(len(codes), -1, storage.block)
            experts[3] += (8 - zero) * scales.reshape(len(codes), -1, 1)[3]
        return numbers

    return read


def rolled(codes: Any, scales: Any, storage: Any) -> Any:
    return unpacked(codes, np.roll(scales, 1, -1), storage)


def small(codes: Any, scales: Any, storage: Any) -> Any:
    wrong = np.resize(scales, (codes.size // 32,))
    return unpacked(codes, wrong, replace(storage, block=32))


_noise = np.random.default_rng(0)

MUTANTS: dict[str, Mutant] = {
    # the router
    "correction bias dropped": Mutant("L1/moe_route/bias", {"moe_route": router(bias=False)}),
    "correction bias also weighs": Mutant("L1/moe_route/bias", {"moe_route": router(weigh=True)}),
    "no renormalisation": Mutant("L1/moe_route/plain", {"moe_route": router(normalise=False)}),
    "norm_min ignored": Mutant("L1/moe_route/norm-min", {"moe_route": router(floor=False)}),
    "sigmoid for softmax": Mutant("L1/moe_route/plain", {"moe_route": router(sigmoid)}),
    "ties to the highest expert": Mutant("L1/moe_route/ties", {"moe_route": instead(last_of_ties)}),
    "router in bfloat16": Mutant("L1/moe_route/*", {"moe_route": instead(narrow_router)}, eager),
    "router in bfloat16, beside bfloat16": Mutant(
        "L1/moe_route/*", {"moe_route": instead(narrow_router)}, eager, "bfloat16"
    ),
    "router in bfloat16, in a model": Mutant("L2/moe/logits", {"moe_route": instead(narrow_router)}, eager),
    # the experts
    "an id of -1 is an expert": Mutant("L1/moe_experts/none", {"moe_experts": instead(none_is_the_last)}),
    "the neighbour's expert": Mutant("L1/moe_experts/plain", {"moe_experts": neighbours}),
    "experts not weighed": Mutant(
        "L1/moe_experts/plain", {"moe_experts": lambda f: lambda x, ids, w, *r, **a: f(x, ids, w * 0 + 0.4, *r, **a)}
    ),
    "shared experts dropped": Mutant("L1/moe_block/shared-experts", {"moe_block": instead(no_shared)}, blocks),
    "shared experts dropped, in a model": Mutant("L2/moe/logits", {"moe_block": instead(no_shared)}, blocks),
    "a mask ignored": Mutant("L1/moe/mask-some", {"moe": without_mask}, blocks),
    "a mask ignored, of ids": Mutant("L1/moe/mask-some", {"where": instead(without_none)}),
    "a mask ignored, of one token": Mutant("L1/moe/mask-one-row", {"where": instead(without_none)}),
    "a mask the other way round": Mutant(
        "L1/moe/mask-all", {"moe": lambda f: lambda *a, **k: f(*a[:5], None if a[5] is None else ~a[5], **k)}, blocks
    ),
    "no second pool": Mutant(
        "L1/moe_block/two-pools", {"moe_block": pools(lambda a, b: (a, (b[0] & False, *b[1:])))}, blocks
    ),
    "both pools for all": Mutant(
        "L1/moe_block/two-pools",
        {"moe_block": pools(lambda a, b: ((a[0] | True, *a[1:]), (b[0] | True, *b[1:])))},
        blocks,
    ),
    "the first pool's router for the second": Mutant(
        "L1/moe_block/two-pools", {"moe_block": pools(lambda a, b: (a, (b[0], *a[1:3], *b[3:])))}, blocks
    ),
    "tokens of neither pool are text": Mutant(
        "L1/moe_block/two-pools-and-tokens-of-neither",
        {"moe_block": pools(lambda a, b: ((~b[0], *a[1:]), b))},
        blocks,
    ),
    # the gate
    "gate and up swapped": Mutant("L1/swiglu/plain", {"swiglu": lambda f: lambda x: f(x[..., ::-1])}),
    "gate and up swapped, in bfloat16": Mutant(
        "L2/dense/logits", {"swiglu": lambda f: lambda x: f(x.flip(-1))}, eager, "bfloat16"
    ),
    "gelu for silu": Mutant("L1/swiglu/plain", {"swiglu": instead(gelu_for_silu)}),
    # rotation
    "halves for adjacent pairs": Mutant("L1/rope_attention/whole", {"rope_attention": instead(halves)}),
    "theta 1 % off": Mutant("L1/rope_attention/long-context", {"rope_attention": rotated(theta)}),
    "theta 1 % off, in bfloat16": Mutant(
        "L1/rope_attention/long-context", {"rope_attention": torch_theta}, eager, "bfloat16"
    ),
    "theta 1 % off, in a model": Mutant("L2/dense/logits", {"rope_attention": rotated(theta)}),
    "rotated backwards": Mutant("L1/rope_attention/whole", {"rope_attention": rotated(lambda c, s, p: (c, -s, p))}),
    "queries one position off": Mutant("L1/rope_attention/whole", {"rope_attention": instead(late_queries)}),
    "every other position": Mutant(
        "L1/rope_attention/whole", {"rope_attention": rotated(lambda c, s, p: (c, s, p // 2))}
    ),
    "positions count from the chunk": Mutant("L3/dense/steps", {"rope_attention": chunk_positions}),
    "tables end at 64": Mutant(
        "L3/dense/context-end", {"rope_attention": rotated(lambda c, s, p: (c, s, np.minimum(p, 63)))}
    ),
    # attention
    "scale missing": Mutant("L1/rope_attention/whole", {"rope_attention": given(scale=1.0)}),
    "scale missing, in float16": Mutant("L2/dense/logits", {"rope_attention": given(scale=1.0)}, eager, "float16"),
    "the next token is seen": Mutant("L1/rope_attention/whole", {"rope_attention": attending(mask=1)}),
    "a token does not see itself": Mutant("L1/rope_attention/whole", {"rope_attention": attending(mask=-1)}),
    "cache rows off by one": Mutant("L1/rope_attention/after-a-cache", {"rope_attention": attending(read=1)}),
    "other sequences are seen": Mutant("L1/rope_attention/three-sequences", {"rope_attention": attending(across=True)}),
    "other sequences are seen, in a batch": Mutant("L3/dense/neighbours", {"rope_attention": attending(across=True)}),
    "kv heads dealt in turn": Mutant("L1/rope_attention/whole", {"rope_attention": attending(heads=False)}),
    "softmax without max": Mutant("L1/rope_attention/sharp", {"rope_attention": attending(numerator=False)}),
    "softmax over the other axis": Mutant("L1/rope_attention/whole", {"rope_attention": attending(axis=0)}),
    "a window of 100": Mutant("L1/rope_attention/long-context", {"rope_attention": attending(window=100)}),
    "a window of 100, in a model": Mutant("L3/moe/context-end", {"rope_attention": attending(window=100)}),
    "frames see one another": Mutant(
        "L1/rope_attention/frames", {"rope_attention": of_frames(lambda frame, index: (frame * 0, index))}
    ),
    "patches see what came before": Mutant(
        "L1/rope_attention/one-frame",
        {"rope_attention": of_frames(lambda frame, index: (frame, np.arange(len(frame))))},
    ),
    "frames see one another, without rotation": Mutant(
        "L1/attention/frames", {"attention": of_frames(lambda frame, index: (frame * 0, index))}
    ),
    # norms, products, residuals, head
    "eps 1e-6": Mutant("L1/rms_norm/small-rows", {"rms_norm": given(eps=1e-6)}),
    "eps 1e-6, in bfloat16": Mutant("L1/rms_norm/small-rows", {"rms_norm": given(eps=1e-6)}, eager, "bfloat16"),
    "norm without its weight": Mutant("L1/rms_norm/plain", {"rms_norm": unweighted}),
    "eps beside the root": Mutant("L1/layer_norm/small-rows", {"layer_norm": deviations(inside=False)}),
    "the variance of a sample": Mutant("L1/layer_norm/plain", {"layer_norm": deviations(sample=True)}),
    "layer norm without its bias": Mutant(
        "L1/layer_norm/plain", {"layer_norm": lambda f: lambda x, w, b, **a: f(x, w, b * 0, **a)}
    ),
    "gelu by sigmoid": Mutant("L1/gelu/erf", {"gelu": given(form="quick")}),
    "gelu by sigmoid, in bfloat16": Mutant("L1/gelu/erf", {"gelu": given(form="quick")}, eager, "bfloat16"),
    "gelu by erf": Mutant("L1/gelu/quick", {"gelu": given(form="erf")}),
    "gelu by erf, in bfloat16": Mutant("L1/gelu/quick", {"gelu": given(form="erf")}, eager, "bfloat16"),
    "bias missing": Mutant("L1/linear/bias", {"linear": without_bias}),
    "bias missing, in a model": Mutant("L2/dense-tied-biases/logits", {"linear": without_bias}),
    "products in bfloat16": Mutant(
        "L1/linear/plain",
        {"linear": narrow_products},
        eager,
    ),
    "residual dropped": Mutant("L1/add/same-shape", {"add": instead(lambda a, b: b + 0 * a)}),
    "residual dropped, in a block": Mutant(
        "L1/mlp_block/plain", {"mlp_block": lambda f: lambda x, *r, **a: f(x, *r, **a) - x}, blocks
    ),
    "embedding one row off": Mutant("L1/embed/table", {"take_rows": lambda f: lambda t, i: f(t, (i + 1) % len(t))}),
    "features beside the embeddings of their tokens": Mutant(
        "L1/embed/features-of-some",
        {"embed": instead(lambda ids, table, features, row: table[ids] + (0 if row is None else features[row]))},
        blocks,
    ),
    "features of the row before": Mutant(
        "L1/embed/features-of-some",
        {"embed": lambda f: lambda i, t, v=None, r=None: f(i, t, v, None if r is None else np.maximum(r - 1, 0))},
        blocks,
    ),
    "features one row short": Mutant("L1/embed/features-of-all", {"in_range": given(stop=2)}),
    "head of the row before": Mutant(
        "L1/head/some-rows", {"head": lambda f: lambda x, *r, **a: f(np.roll(x, 1, 0), *r, **a)}, blocks
    ),
    # what only sequences show
    "rows of a batch mixed up": Mutant("L3/dense/neighbours", {"spoil": staticmethod(mixed_up)}),
    "stale rows": Mutant("L3/dense/cancel", {"rope_attention": instead(written_once)}),
    "another answer every time": Mutant(
        "L3/dense/repeat", {"spoil": staticmethod(lambda step, y: y + _noise.normal(0, 1e-7, y.shape).astype(y.dtype))}
    ),
    "the second best token": Mutant("L2/dense/greedy", {"choose": staticmethod(second_best)}, sampling),
    "greedy with a penalty": Mutant("L2/moe/greedy", {"choose": staticmethod(penalised)}, sampling),
    # what generating asks for
    "few rows of logits are others": Mutant("L3/dense/lean", {"spoil": staticmethod(few_rows)}),
    "no head of no rows": Mutant("L1/head/no-rows", {"head": instead(no_empty_head)}, blocks),
    "no head of no rows, in a model": Mutant("L3/dense/lean", {"head": instead(no_empty_head)}, blocks),
    "half a vocabulary": Mutant("L3/moe/lean", {"choose": staticmethod(half_a_vocabulary)}, sampling),
    # what another executable is handed, and a promise of the same bits
    "rows without their last part": Mutant("L3/dense/restart", {"compile": rows_out(no_last_layer)}),
    "the row before": Mutant("L3/moe/restart", {"compile": rows_out(lambda read, rows: read(np.maximum(rows - 1, 0)))}),
    "a deterministic mode that is none": Mutant("L3/dense/bits", {"compile": as_ever}, eager),
    # what only large sizes show
    "128 rows": Mutant("L1/linear/many-rows-and-outputs", {"linear": up_to(rows=128)}),
    "128 rows, in a model": Mutant("L2/large-dense/logits", {"linear": up_to(rows=128)}),
    "256 outputs": Mutant("L1/linear/many-rows-and-outputs", {"linear": up_to(columns=256)}),
    "a window of 512": Mutant("L1/rope_attention/past-512-rows", {"rope_attention": attending(window=512)}),
    "a window of 512, in a model": Mutant("L2/large-dense/logits", {"rope_attention": attending(window=512)}),
    "four sequences at once": Mutant("L2/large-dense/logits", {"rope_attention": first_sequences}),
    "narrow heads": Mutant("L1/rope_attention/past-512-rows", {"rope_attention": narrow_heads}),
    "narrow heads, in a model": Mutant("L2/large-dense/logits", {"rope_attention": narrow_heads}),
    "few heads a group": Mutant("L2/large-dense/logits", {"rope_attention": few_heads_a_group}),
    "32 experts": Mutant("L1/moe_experts/many-experts", {"moe_experts": instead(few_experts)}),
    "32 experts, in a model": Mutant("L2/large-moe/logits", {"moe_experts": instead(few_experts)}),
    "four experts a token": Mutant("L2/large-moe/logits", {"moe_experts": instead(four_experts)}),
    # what only deep models show
    "layers by the first digit of their number": Mutant("L2/deep-moe/logits", {"compile": one_digit}),
    # what a run that shows its experts, or one that is not at its end, does not enter
    "a block wrong in chunks": Mutant("L3/moe/chunks", {"moe_block": five_tokens}, blocks),
    "no last position": Mutant("L3/dense/context-end", {"rope_attention": rotated(table_without_end)}),
    # what only trained weights, long contexts and large vocabularies show
    "a window of 1,024": Mutant("L4/long/logits", {"rope_attention": attending(window=1024)}),
    "tables end at 1,024": Mutant(
        "L4/long/logits", {"rope_attention": rotated(lambda c, s, p: (c, s, np.minimum(p, 1023)))}
    ),
    "2,048 tokens": Mutant(
        "L4/chat/logits", {"spoil": staticmethod(lambda step, y: y * (np.arange(y.shape[1]) < 2048))}
    ),
    "an end that never comes": Mutant("L5/chat/greedy", {"choose": staticmethod(endless)}, sampling),
    "no temperature": Mutant(
        "L3/dense/tokens", {"choose": staticmethod(lambda step, logits: logits.argmax(-1))}, sampling
    ),
    "the noise of the next place": Mutant(
        "L3/moe/tokens", {"choose": staticmethod(lambda step, logits: drawn(step, logits, later=1))}, sampling
    ),
    "a token now and then": Mutant("L3/dense/tokens", {"choose": staticmethod(now_and_then)}, sampling),
    # models that see
    "frames see one another, in a model": Mutant(
        "L3/vl/pieces", {"rope_attention": of_frames(lambda frame, index: (frame * 0, index))}
    ),
    "rows and columns swapped, in a model": Mutant("L2/vl/logits", {"rope_rows": mirrored}),
    "the feature before, in a model": Mutant("L2/vl/logits", {"embed": one_late}, blocks),
    "text for the second pool, in a model": Mutant(
        "L2/vl/logits", {"moe_block": pools(lambda a, b: (a, (b[0] & False, *b[1:])))}, blocks
    ),
    # blocks of integers
    "nibbles the wrong way round": Mutant("L1/linear/blocks", {"read": staticmethod(swapped)}, packed, storage="int4"),
    "zero is 7": Mutant("L1/moe_experts/blocks", {"read": staticmethod(off_by_one)}, packed, storage="int4/64"),
    "scales of the next block": Mutant("L1/head/blocks", {"read": staticmethod(rolled)}, packed, storage="int8"),
    "zero is 7 in one expert": Mutant(
        "L4/plain/logits", {"read": staticmethod(one_expert_off(7))}, packed, storage="int4"
    ),
    "zero is 6 in one expert, activations in int8": Mutant(
        "L4/plain/logits", {"read": staticmethod(one_expert_off(6))}, lambda: RoundedBackend, storage="int4"
    ),
    "blocks of 32 always": Mutant("L1/linear/blocks", {"read": staticmethod(small)}, packed, storage="int8/64"),
    "NaN in the logits": Mutant("L2/dense/logits", {"spoil": staticmethod(lambda step, y: y + math.nan)}),
}


UNSEEN = (
    "correction bias dropped",
    "correction bias also weighs",
    "the neighbour's expert",
    "gate and up swapped",
    "gate and up swapped, in bfloat16",
    "scale missing, in float16",
)


@pytest.mark.parametrize("name", UNSEEN)
def test_is_seen_without_taps(name: str) -> None:
    """Where flipped experts might explain much, what is wrong everywhere is still wrong."""
    expectations = Expectations(Features(moe=True, batches=True))
    mutant = MUTANTS[name]
    suite = Suite("mutant", host_of(mutant.backend()), dtype=mutant.dtype, expectations=expectations)
    (check,) = (check for check in suite.checks(["L2"]) if str(check) == "L2/moe/logits")
    assert check.run().status == "failed"


def test_not_all_is_excused_when_every_choice_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Route, "distance", lambda self: np.zeros(len(self.ids)))
    test_is_seen_without_taps("correction bias dropped")


REPEATED = {f"{name}, in a model" for name in ("128 rows", "a window of 512", "narrow heads", "32 experts")}
"""What the check of an operator sees; that a large model shows it as well, like others of this table, takes longer."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in REPEATED else ()) for name in MUTANTS]
)
def test_is_seen(name: str, record_property: Callable[[str, object], None]) -> None:
    mutant = MUTANTS[name]
    suite = Suite("mutant", host_of(mutant.backend()), dtype=mutant.dtype, storage=mutant.storage)
    level = mutant.caught_by[:2]
    results = [c.run() for c in suite.checks([level]) if fnmatchcase(str(c), mutant.caught_by)]
    failed = [result for result in results if result.status in BAD]
    assert failed, results
    margin = min(result.figures.get("margin", math.inf) for result in failed)
    record_property("margin", margin)
    print(f"{name}: {margin:.3g} times the limit: {failed[0].reason}")
    assert margin > 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["a window of 1,024", "tables end at 1,024", "2,048 tokens"])
def test_only_trained_weights_show(name: str) -> None:
    mutant = MUTANTS[name]
    report = Suite("mutant", host_of(mutant.backend()), dtype=mutant.dtype).run(["L1", "L2", "L3"])
    assert report.ok, report.table()
