"""Each of eager's functions against the float64 meaning of its op, on cases that whole models seldom meet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ernie_rt.contract import Step
from ernie_rt.graph.ops import OPS
from ernie_rt.reference.ops import MEANINGS
from ernie_rt_eager import attention, products
from ernie_rt_eager.alone import FUNCTIONS_ALONE
from ernie_rt_eager.attention import Context, LayerCache
from ernie_rt_eager.ops import FUNCTIONS

Functions = Mapping[str, Callable[..., Any]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def meaning(op: str, *operands: Tensor | None, **attrs: Any) -> Any:
    return MEANINGS[op](
        *(None if o is None else (o.double() if o.is_floating_point() else o).numpy() for o in operands), **attrs
    )


def close(result: Tensor, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    scale = np.sqrt(np.mean(expected**2))
    assert np.abs(result.double().numpy() - expected).max() <= tolerance * scale


@pytest.fixture(params=[FUNCTIONS, FUNCTIONS_ALONE], ids=["together", "alone"])
def functions(request: pytest.FixtureRequest) -> Functions:
    table: Functions = request.param
    return table


def test_every_function_is_an_op() -> None:
    assert set(FUNCTIONS) <= set(OPS)


@pytest.mark.parametrize("product", [products.product, products.product_in_tiles])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 33])
@pytest.mark.parametrize(("out", "width"), [(5, 3), (70, 40), (1500, 1024)])
def test_products_through_float32_tiles(
    monkeypatch: pytest.MonkeyPatch, product: products.Product, rows: int, out: int, width: int, bias: bool
) -> None:
    """As on a CPU without 16-bit products: rounded once, from the exact sum."""
    monkeypatch.setattr(products, "cpu_multiplies", lambda dtype: False)
    monkeypatch.setattr(products, "TILE_ELEMENTS", 1 << 16)
    x, weight = normal(rows, width).bfloat16(), normal(out, width, seed=1).bfloat16()
    b = normal(out, seed=2).bfloat16() if bias else None
    exact = meaning("linear", x, weight, b)
    result = product(x, weight, b)
    assert result.dtype is torch.bfloat16
    assert result.shape == (rows, out)
    # bfloat16 keeps 8 bits, so a rounding is off by 2^-9 of a value; PyTorch's own product of few rows rounds alike.
    error = np.abs(result.double().numpy() - exact) - 2.0**-8 * np.abs(exact)
    assert error.max() <= 1e-5 * np.sqrt(np.mean(exact**2))


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_of_gate_and_up_in_either_layout(functions: Functions, rows: int, bias: bool) -> None:
    x, logical = normal(rows, 6), normal(4, 2, 6, seed=1)
    b = normal(4, 2, seed=2) if bias else None
    apart = logical.transpose(0, 1).contiguous().transpose(0, 1)  # as the executable keeps it
    for weight in (logical, apart):
        close(functions["linear"](x, weight, b), meaning("linear", x, logical, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_of_tiny_and_large_rows(functions: Functions, dtype: torch.dtype) -> None:
    x = (normal(4, 64) * torch.tensor([[1e-6], [1.0], [1e3], [0.0]])).to(dtype)
    weight = normal(64, seed=1).to(dtype)
    result, expected = functions["rms_norm"](x, weight, eps=1e-5), meaning("rms_norm", x, weight, eps=1e-5)
    tolerance = 2e-6 if dtype is torch.float32 else 2.0**-8
    for row, exact in zip(result, expected, strict=True):
        assert np.abs(row.double().numpy() - exact).max() <= tolerance * max(np.abs(exact).max(), 1e-30)


def test_ties_in_the_router_go_to_the_lowest_ids(functions: Functions) -> None:
    ids, weights = functions["moe_route"](torch.ones(3, 4), torch.zeros(8, 4), None, top_k=3, norm_min=1e-12)
    assert ids.tolist() == [[0, 1, 2]] * 3
    assert weights.tolist() == [pytest.approx([1 / 3] * 3)] * 3


def test_the_bias_selects_and_does_not_weigh(functions: Functions) -> None:
    x, gate, bias = normal(40, 16), normal(8, 16, seed=1) * 0.3, normal(8, seed=2) * 0.2
    ids, weights = functions["moe_route"](x, gate, bias, top_k=3, norm_min=1e-12)
    expected_ids, expected = meaning("moe_route", x, gate, bias, top_k=3, norm_min=1e-12)
    assert ids.tolist() == expected_ids.tolist()
    close(weights, expected)
    unbiased = meaning("moe_route", x, gate, None, top_k=3, norm_min=1e-12)[0]
    assert (np.sort(expected_ids) != np.sort(unbiased)).any()


def test_experts_that_nobody_and_everybody_wants_and_ids_of_minus_one(functions: Functions) -> None:
    x, gate_up, down = normal(9, 6), normal(5, 4, 2, 6, seed=1), normal(5, 6, 4, seed=2)
    ids = torch.tensor([[3, 0], [3, -1], [-1, -1], [3, 4], [0, 3], [4, 3], [3, 0], [-1, 3], [3, 0]])
    weights = torch.rand(9, 2, generator=torch.Generator().manual_seed(3))
    result = functions["moe_experts"](x, ids, weights, gate_up, down, top_k=2)
    close(result, meaning("moe_experts", x, ids, weights, gate_up, down, top_k=2))
    assert not result[2].any()


@pytest.mark.parametrize("lengths", [(5,), (1, 1), (3, 40, 1, 8)])
def test_frames_see_themselves_alone(functions: Functions, lengths: tuple[int, ...]) -> None:
    heads, size, count = 4, 10, sum(lengths)
    qkv, angles = normal(count, 3 * heads * size), normal(count, size // 2, seed=1)
    frame = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), torch.tensor(lengths))
    operands = (qkv, angles.cos(), angles.sin(), None, None, frame, *[None] * 5)
    attrs = {"num_heads": heads, "num_kv_heads": heads, "head_dim": size, "scale": size**-0.5}
    close(functions["rope_attention"](*operands, **attrs), meaning("rope_attention", *operands, **attrs))


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 2)])
def test_many_patches_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, functions: Functions, heads: int, kv_heads: int, multiplies: bool
) -> None:
    """Product by product, more rows than are taken at a time; or, on a CPU that does not multiply them, in float32."""
    monkeypatch.setattr(attention, "cpu_multiplies", lambda dtype: multiplies)
    lengths = (600, 1, 130)
    q = normal(sum(lengths), heads, 16).bfloat16()
    k, v = (normal(sum(lengths), kv_heads, 16, seed=seed).bfloat16() for seed in (1, 2))
    frame = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    found = functions["attention"](q, k, v, None, frame, *[None] * 5, scale=0.25)
    assert found.dtype is torch.bfloat16
    close(found, meaning("attention", q, k, v, None, frame, *[None] * 5, scale=0.25), 0.15 if multiplies else 0.05)


def test_scores_of_a_picture_are_never_all_in_memory() -> None:
    """As in a child process: memory that was used once is used again. Of 5,000 patches scores would take 200 MB."""
    program = """
import resource, torch
from ernie_rt_eager.ops import FUNCTIONS
torch.set_num_threads(1)
def attend(count):
    qkv, angles = torch.ones(count, 3 * 2 * 16), torch.zeros(count, 8)
    with torch.inference_mode():
        FUNCTIONS["rope_attention"](
            qkv, angles, angles, None, None, torch.zeros(count, dtype=torch.int32), *[None] * 5,
            num_heads=2, num_kv_heads=2, head_dim=16, scale=0.25,
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = attend(8)
print((attend(5000) - before) / 1024)
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert float(found.stdout) < 50


@pytest.mark.parametrize("tables", [[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[4, 0, 7], [8, 2, 3], [1, 5, 6]]])
def test_attention_in_pages_side_by_side_and_scattered(functions: Functions, tables: list[list[int]]) -> None:
    """A chunk after a past, a decode, and a fresh prompt, in one step."""
    heads, kv_heads, size = 6, 2, 8
    step = Step(
        ids=np.zeros(5 + 1 + 4, np.int32),
        query_start=np.array([0, 5, 6, 10], np.int32),
        past=np.array([6, 9, 0], np.int32),
        tables=np.array(tables, np.int32),
        page_size=4,
        seats=np.arange(3, dtype=np.int32),
        rows=np.array([4, 5, 9], np.int32),
    )
    qkv, state = normal(10, (heads + 2 * kv_heads) * size), normal(36, 2, kv_heads, size, seed=1)
    angles = torch.outer(torch.arange(16.0), 0.5 ** torch.arange(size / 2))
    attrs = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": size, "scale": size**-0.5}
    names = ("positions", "sequence", "index", "write", "context", "context_sequence", "context_index")
    indices = {name: torch.from_numpy(np.ascontiguousarray(step.input(name))) for name in names}
    exact = state.double().numpy()
    expected = MEANINGS["rope_attention"](
        qkv.double().numpy(),
        angles.cos().double().numpy(),
        angles.sin().double().numpy(),
        exact,
        *(indices[name].numpy() for name in names),
        **attrs,
    )
    cache = LayerCache(state[:, 0].clone(), state[:, 1].clone())
    context = Context(step, torch.device("cpu"))
    result = functions["rope_attention"](
        qkv, angles.cos(), angles.sin(), cache, indices["positions"], None, None, None, context, None, None, **attrs
    )
    close(result, expected)
    close(torch.stack([cache.k, cache.v], dim=1), exact)
