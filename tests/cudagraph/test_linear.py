"""Products of few rows, with a norm before them and what a block does after them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ernie_rt_cudagraph.blocks.mlp import mlp_block
from ernie_rt_cudagraph.kernels import linear as kernels
from ernie_rt_cudagraph.kernels.linear import linear, swiglu_linear
from ernie_rt_cudagraph.launch import listed
from ernie_rt_eager import ops
from support.kernels import check_near, meaning, normal

EPS = 1e-5
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_linear(data: st.DataObject) -> None:
    dtype = data.draw(DTYPES)
    rows, width, out = (data.draw(st.integers(1, most)) for most in (40, 90, 50))
    x, weight = normal(rows, width, seed=0, dtype=dtype), normal(out, width, seed=1, dtype=dtype, scale=width**-0.5)
    norm = normal(width, seed=2, dtype=dtype, mean=1, scale=0.2) if data.draw(st.booleans()) else None
    bias = normal(out, seed=3, dtype=dtype) if data.draw(st.booleans()) else None
    residual = normal(rows, out, seed=4, dtype=dtype) if data.draw(st.booleans()) else None

    rough, exact = x, x.double().numpy()
    if norm is not None:
        rough, exact = ops.rms_norm(x, norm, eps=EPS), meaning("rms_norm", x, norm, eps=EPS)
    rough, exact = ops.linear(rough, weight, bias), meaning("linear", exact, weight.double().numpy(), bias)
    if residual is not None:
        rough, exact = residual + rough, residual.double().numpy() + exact
    check_near(linear(x, weight, bias, norm=norm, eps=EPS, residual=residual), rough, exact)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_mlp(data: st.DataObject) -> None:
    dtype, biased = data.draw(DTYPES), data.draw(st.booleans())
    rows, hidden, width = (data.draw(st.integers(1, most)) for most in (40, 90, 50))
    x = normal(rows, hidden, seed=0, dtype=dtype)
    norm = normal(hidden, seed=1, dtype=dtype, mean=1, scale=0.2)
    gate_up = normal(2, width, hidden, seed=2, dtype=dtype, scale=hidden**-0.5).transpose(0, 1)
    down = normal(hidden, width, seed=3, dtype=dtype, scale=width**-0.5)
    biases = (normal(width, 2, seed=4, dtype=dtype), normal(hidden, seed=5, dtype=dtype)) if biased else (None, None)
    operands = (x, norm, gate_up, biases[0], down, biases[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_rt_cudagraph.blocks.mlp.FEW_ROWS", 0)
        with listed() as launches:
            rough = mlp_block(*operands, eps=EPS)
        assert not launches
    check_near(mlp_block(*operands, eps=EPS), rough, meaning("mlp_block", *operands, eps=EPS))


def test_gate_and_up_side_by_side() -> None:
    """Strides say how they lie, and of a norm that is absent nothing is read."""
    x, gate_up, bias = (normal(*shape, seed=i) for i, shape in enumerate([(3, 24), (20, 2, 24), (20, 2)]))
    apart = gate_up.transpose(0, 1).contiguous().transpose(0, 1)
    first, second = (swiglu_linear(x, weight, bias, norm=None) for weight in (gate_up, apart))
    assert torch.equal(first, second)
    check_near(first, ops.swiglu(ops.linear(x, apart, bias)), meaning("swiglu", meaning("linear", x, gate_up, bias)))


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 17, 128, 200])
def test_rows_of_no_number_stay_alone(rows: int) -> None:
    """Whatever is in a row of padding, the others are as they were."""
    x, weight, norm = normal(rows, 32, seed=0), normal(5, 32, seed=1), normal(32, seed=2)
    usual = linear(x, weight, norm=norm, eps=EPS)
    spoilt = x.clone()
    spoilt[1::2] = torch.nan
    found = linear(spoilt, weight, norm=norm, eps=EPS)
    assert torch.equal(found[::2], usual[::2])
    assert found[1::2].isnan().all()


@pytest.mark.parametrize("rows", [1, 2, 3, 32, 33, 256])
@pytest.mark.parametrize("width", [1, 24, 100, 1024, 2560, 12288])
@pytest.mark.parametrize("paired", [True, False])
def test_tiles(rows: int, width: int, paired: bool) -> None:
    """Tensor cores have tiles of 16; grids reach every row."""
    tiles = kernels.Tiles.of(rows, width, 2, paired=paired)
    assert tiles.M == 1 if rows <= 2 else tiles.M >= 16
    assert tiles.ROWS > 1 or not paired
    assert all(size & (size - 1) == 0 for size in (tiles.M, tiles.ROWS, tiles.BLOCK_K))
    blocks, tall = tiles.grid(rows, 37)
    assert blocks * tiles.M >= rows
    assert tall * tiles.ROWS >= 37


def test_launches_are_listed_of_tensors_without_memory() -> None:
    def meta(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.bfloat16, device="meta")

    with listed() as launches:
        mlp_block(meta(8, 2560), meta(2560), meta(12288, 2, 2560), None, meta(2560, 12288), None, eps=EPS, pdl=True)
    assert [launch.kernel.__name__ for launch in launches] == ["norm_kernel", "swiglu_kernel", "linear_kernel"]
    assert all(launch.arguments["PDL"] is True for launch in launches)
