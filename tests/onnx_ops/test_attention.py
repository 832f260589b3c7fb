"""Attention of the library, in NumPy's float64 against what its kernels give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.meaning import drawn, normal
from support.operators import Array, run_operator

CLOSE = 2e-5
"""Of the rms."""


def rotated(x: Array, cos: Array, sin: Array) -> Array:
    """Adjacent pairs of `[heads, D]`, by the angles of one place `[D / 2]`."""
    even, odd = x[:, ::2], x[:, 1::2]
    return np.stack((even * cos - odd * sin, odd * cos + even * sin), axis=-1).reshape(x.shape)


def attention(inputs: dict[str, Array], heads: int, kv_heads: int, scale: float) -> tuple[Array, Array, Array]:
    """What comes out, in float64; and both caches."""
    qkv, cos, sin = (inputs[name].astype(np.float64) for name in ("qkv", "cos", "sin"))
    keys, values = (inputs[name].astype(np.float64).copy() for name in ("past_key", "past_value"))
    batch, _, _, size = keys.shape
    tokens = qkv.reshape(batch, -1, heads + 2 * kv_heads, size)
    each, group = tokens.shape[1], heads // kv_heads
    y = np.zeros((batch, each, heads, size))
    for b in range(batch):
        for s in range(each):
            place = int(inputs["last"][b]) + 1 - each + s
            q, k, v = np.split(tokens[b, s], (heads, heads + kv_heads))
            keys[b, :, place], values[b, :, place] = rotated(k, cos[place], sin[place]), v
            q = rotated(q, cos[place], sin[place])
            for head in range(heads):
                rows = slice(0, place + 1)
                scores = keys[b, head // group, rows] @ q[head] * scale
                shares = np.exp(scores - scores.max())
                y[b, s, head] = shares / shares.sum() @ values[b, head // group, rows]
    return y.reshape(batch * each, heads * size), keys, values


def drawn_inputs(
    rng: np.random.Generator, kv_heads: int, group: int, size: int, each: int, pasts: list[int], spare: int
) -> dict[str, Array]:
    heads, batch, capacity = kv_heads * group, len(pasts), max(pasts) + each + spare
    angles = rng.uniform(0, 7, (capacity + 3, size // 2))
    return {
        "qkv": normal(rng, batch * each, (heads + 2 * kv_heads) * size),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
        "past_key": normal(rng, batch, kv_heads, capacity, size),
        "past_value": normal(rng, batch, kv_heads, capacity, size),
        "last": np.array([past + each - 1 for past in pasts], np.int32),
    }


@drawn
@given(
    rng=st.integers(0, 2**32 - 1).map(np.random.default_rng),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 9),
    size=st.sampled_from([16, 32, 48, 128, 144]),
    each=st.one_of(st.just(1), st.integers(1, 4), st.sampled_from([17, 70])),
    pasts=st.lists(st.sampled_from([0, 1, 5, 31, 63, 64, 65, 200]), min_size=1, max_size=3),
    spare=st.integers(0, 2),
    spread=st.sampled_from([1.0, 8.0]),
)
def test_any_sizes(
    kernels: str,
    rng: np.random.Generator,
    kv_heads: int,
    group: int,
    size: int,
    each: int,
    pasts: list[int],
    spare: int,
    spread: float,
) -> None:
    compare(kernels, drawn_inputs(rng, kv_heads, group, size, each, pasts, spare), kv_heads, group, spread)


@pytest.mark.parametrize("past", [511, 512, 513, 1023, 1400])
def test_a_long_context_is_divided(kernels: str, past: int) -> None:
    inputs = drawn_inputs(np.random.default_rng(past), 2, 5, 32, 1, [past, 3], 0)
    compare(kernels, inputs, 2, 5, 1.0)


def compare(kernels: str, inputs: dict[str, Array], kv_heads: int, group: int, spread: float) -> None:
    heads, scale = kv_heads * group, spread * inputs["past_key"].shape[-1] ** -0.5
    attrs = {"num_heads": heads, "num_kv_heads": kv_heads, "scale": scale}
    found = run_operator(kernels, "RopeAttention", inputs, outputs=3, **attrs)
    for mine, exact in zip(found, attention(inputs, heads, kv_heads, scale), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=0, atol=10 * CLOSE * np.sqrt(np.mean(exact**2)))
        assert np.sqrt(np.mean((mine - exact) ** 2)) <= CLOSE * np.sqrt(np.mean(exact**2))
    for mine, other in zip(
        run_operator(kernels, "RopeAttention", by_token(inputs), outputs=3, **attrs), found, strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def by_token(inputs: dict[str, Array]) -> dict[str, Array | None]:
    """The same with a row of cos and sin for each token, in place of tables."""
    each = len(inputs["qkv"]) // len(inputs["last"])
    places = (inputs["last"][:, None] + np.arange(1 - each, 1)).ravel()
    rows = {f"token_{name}": inputs[name][places] for name in ("cos", "sin")}
    return {**inputs, "cos": None, "sin": None, **rows}


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("what", ["key", "value"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_no_number_reaches_those_that_see_it_alone(kernels: str, group: int, what: str, number: float) -> None:
    """In row 6 of the context, of whose 9 rows the last five tokens bring their own."""
    inputs = drawn_inputs(np.random.default_rng(0), 1, group, 16, 5, [4], 0)
    head = group + (what == "value")  # of queries, keys and values
    inputs["qkv"][2, 16 * head : 16 * (head + 1)] = number
    attrs = {"num_heads": group, "num_kv_heads": 1, "scale": 0.25}
    y, _, _ = run_operator(kernels, "RopeAttention", inputs, outputs=3, **attrs)
    assert np.isfinite(y[:2]).all()
    assert not np.isfinite(y[2:]).all(axis=1).any()


USUAL = {"num_heads": 4, "num_kv_heads": 2, "scale": 0.25}


def usual() -> dict[str, Array]:
    return drawn_inputs(np.random.default_rng(0), 2, 2, 16, 2, [3], 1)


@pytest.mark.parametrize("name, axis", [(name, axis) for name, array in usual().items() for axis in range(array.ndim)])
def test_wrong_shapes(kernels: str, name: str, axis: int) -> None:
    inputs = usual()
    assert run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)[0].shape == (2, 64)
    if (name, axis) == ("qkv", 0):
        return
    inputs[name] = np.take(inputs[name], range(inputs[name].shape[axis] - 1), axis)
    with pytest.raises(Exception, match=r"RopeAttention: .*expected"):
        run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)


@pytest.mark.parametrize("name, axis", [("token_cos", 0), ("token_cos", 1), ("token_sin", 0), ("token_sin", 1)])
def test_wrong_rows_of_tokens(kernels: str, name: str, axis: int) -> None:
    inputs = by_token(usual())
    rows = inputs[name]
    assert rows is not None
    inputs[name] = np.take(rows, range(rows.shape[axis] - 1), axis)
    with pytest.raises(Exception, match=rf"RopeAttention: {name} .*expected|RopeAttention: token_sin .*expected"):
        run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)


def test_neither_tables_nor_rows(kernels: str) -> None:
    inputs: dict[str, Array | None] = {**usual(), "cos": None, "sin": None}
    with pytest.raises(Exception, match="RopeAttention: no input cos"):
        run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)


@pytest.mark.parametrize("last", [-1, 0, 6, 2**31 - 1, -(2**31)])
def test_a_place_that_is_none(kernels: str, last: int) -> None:
    inputs = usual() | {"last": np.array([last], np.int32)}
    with pytest.raises(Exception, match=f"RopeAttention: last is {last}, expected 1 to 5"):
        run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)


def test_tokens_that_do_not_divide(kernels: str) -> None:
    inputs = drawn_inputs(np.random.default_rng(0), 2, 2, 16, 2, [3, 4], 1)
    inputs["qkv"] = inputs["qkv"][:3]
    with pytest.raises(Exception, match=r"RopeAttention: 3 tokens .* 2 sequences"):
        run_operator(kernels, "RopeAttention", inputs, outputs=3, **USUAL)


@pytest.mark.parametrize("heads, kv_heads", [(3, 2), (1, 2), (4, 0), (0, -1)])
def test_heads_that_do_not_divide(kernels: str, heads: int, kv_heads: int) -> None:
    with pytest.raises(Exception, match="RopeAttention: num_heads is"):
        attrs = USUAL | {"num_heads": heads, "num_kv_heads": kv_heads}
        run_operator(kernels, "RopeAttention", usual(), outputs=3, **attrs)
