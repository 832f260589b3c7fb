"""What the library's operators mean, in NumPy's float64; what chance brings to them, and how near they have to come."""

from __future__ import annotations

from typing import Final

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ernie_rt.storage.block_quantized import BlockQuantized
from support.operators import Array

CLOSE: Final = 1e-4
"""Of the rms: float32 sums in another order."""
ONE_CODE: Final = {"linear": 0.05, "feed_forward": 0.3}
"""Of the rms: a number that lies between two codes becomes either, by the last bit of a float32. In a token that has
one, a product is off by a code; of a feed forward a whole row of what lies between."""

drawn = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
storages = st.builds(BlockQuantized, st.sampled_from([4, 8]), st.sampled_from([32, 64, 128]))
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
counts = st.one_of(st.integers(0, 9), st.integers(60, 70), st.integers(125, 135))


def rounded(x: Array, block: int | None) -> Array:
    """Activations as the kernels round them, to a multiple of the largest of a block over 127; without blocks as they
    are."""
    if block is None:
        return x.astype(np.float64)
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], x.shape[-1] // block, block)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    codes = np.rint(blocks.astype(np.float64) * inverse)
    return (codes * (largest / np.float32(127))).reshape(x.shape)


def check(found: Array, exact: Array, kind: str = "linear") -> None:
    """Of operators that round activations."""
    assert found.shape == exact.shape
    if exact.size:
        errors, rms = np.abs(found - exact).reshape(len(exact), -1).max(1), np.sqrt(np.mean(exact**2))
        assert errors.max() <= ONE_CODE[kind] * rms
        assert (errors > CLOSE * rms).sum() <= 1 + len(errors) / 20


def normed(x: Array, weight: Array, eps: float) -> Array:
    """rms_norm, rounded to float32."""
    factor = np.sqrt(np.mean(x.astype(np.float64) ** 2, -1, keepdims=True) + eps)
    return np.asarray(x / factor * weight, np.float32)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def silu(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def mlp(x: Array, gate_up: Array, gate_up_bias: Array | None, down: Array, block: int | None) -> Array:
    """down(silu(gate) * up) with activations rounded where they meet a weight; `x` is rounded already."""
    halves = np.einsum("nh,iph->nip", x, gate_up.astype(np.float64))
    if gate_up_bias is not None:
        halves = halves + gate_up_bias
    inner = (silu(halves[..., 0]) * halves[..., 1]).astype(np.float32)
    return rounded(inner, block) @ down.astype(np.float64).T


def route(x: Array, router: Array, bias: Array | None, top_k: int) -> tuple[Array, Array]:
    logits = x.astype(np.float64) @ router.astype(np.float64).T
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    scores = probabilities if bias is None else probabilities + bias
    ids = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(probabilities, ids, -1)
    return ids, chosen / chosen.sum(-1, keepdims=True)


def without(inputs: dict[str, Array | None], name: str, axis: int) -> dict[str, Array | None]:
    """The inputs, of one of which an axis is shorter by one."""
    array = inputs[name]
    assert array is not None
    return {**inputs, name: np.take(array, range(array.shape[axis] - 1), axis)}
