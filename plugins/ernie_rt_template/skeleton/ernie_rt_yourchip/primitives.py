"""The ops that every model decomposes into, as NumPy functions; their meaning is in `ernie_rt.graph.primitives`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def cache_update(k: Any, v: Any, state: Any, write: Any, context: Any) -> Any:
    """Write the rows of new tokens, then read those that they may look at."""
    state[write] = np.stack([k, v], 1)
    return state[context, 0], state[context, 1]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    "cast": lambda x, dtype: x.astype(dtype),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "affine": lambda x, scale, shift: x * scale + shift,
    "clamp_min": lambda x, minimum: np.maximum(x, minimum),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 0.5 * np.tanh(0.5 * x) + 0.5,
    "erf": lambda x: np.vectorize(math.erf, otypes=[x.dtype])(x),
    "softmax": softmax,
    "sum": lambda x, axis, keepdims: x.sum(axis, keepdims=keepdims),
    "matmul": np.matmul,
    "top_k": lambda x, k: np.argsort(-x, axis=-1, kind="stable")[..., :k],
    "take_rows": lambda x, ids: x[ids],
    "take_along": lambda x, ids: np.take_along_axis(x, ids, -1),
    "equal": np.equal,
    "less_equal": np.less_equal,
    "in_range": lambda x, start, stop: (start <= x) & (x < stop),
    "logical_and": np.logical_and,
    "one_hot": lambda ids, depth, dtype: (ids[..., None] == np.arange(depth)).astype(dtype),
    "where": lambda mask, x, otherwise: np.where(mask, x, x.dtype.type(otherwise)),
    "reshape": lambda x, dims: x.reshape(dims),
    "transpose": lambda x, perm: x.transpose(perm),
    "slice": lambda x, axis, start, stop: x.take(range(start, stop), axis),
    "concat": lambda a, b, axis: np.concatenate([a, b], axis),
    "cache_update": cache_update,
}
