"""Eager's functions for deterministic mode: a row becomes the same bits whatever rows come with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest
import torch
from torch import Tensor

from ernie_rt.contract import Accept, Reject, Target
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import TensorType
from ernie_rt_eager.alone import ALONE, FUNCTIONS_ALONE, attend_each
from ernie_rt_eager.attention import TOGETHER, LayerCache, Segment, attend_together
from ernie_rt_eager.backend import EagerBackend, threads
from ernie_rt_eager.ops import FUNCTIONS

ROWS: Final = 331
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS: Final = (48, 1001)
"""The second is no whole number of vectors."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[2, 5], autouse=True)
def several_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with threads(request.param):
        yield


def differing(function: Callable[..., Tensor], *operands: Tensor) -> list[tuple[int, int]]:
    """Stretches of rows that become something else when they come without the others."""
    whole, found = function(*operands), []
    for length in (1, 2, 5, 16, 31, 150):
        for start in range(0, ROWS - length, max(41, length)):
            rows = slice(start, start + length)
            if not torch.equal(function(*(each[rows].clone() for each in operands)), whole[rows]):
                found.append((start, length))
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_products_and_the_router(dtype: torch.dtype, width: int) -> None:
    functions, x = FUNCTIONS_ALONE, normal(ROWS, width).to(dtype)
    norm, gate = normal(width, seed=1), normal(8, width, seed=2)
    weight, bias = normal(37, width, seed=3).to(dtype), normal(37, seed=4).to(dtype)
    assert not differing(lambda rows: functions["rms_norm"](rows, norm, eps=1e-5), x)
    assert not differing(lambda rows: functions["linear"](rows, weight, bias), x)
    assert not differing(lambda rows: functions["moe_route"](rows, gate, None, top_k=3, norm_min=1e-12)[1], x)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gates_and_experts(dtype: torch.dtype, width: int) -> None:
    functions, x = FUNCTIONS_ALONE, normal(ROWS, 24).to(dtype)
    gate_up = (0.2 * normal(4, 2, width, 24, seed=1)).to(dtype).transpose(1, 2)
    down = normal(4, 24, width, seed=2).to(dtype)
    ids = torch.stack((torch.zeros(ROWS, dtype=torch.int64), 1 + torch.arange(ROWS) % 3), dim=1)
    weights = normal(ROWS, 2, seed=3).to(dtype)
    halves = normal(ROWS, 2, width, seed=4).to(dtype).transpose(1, 2)  # as `linear` makes them
    assert not differing(functions["swiglu"], halves)
    assert not differing(lambda *rows: functions["moe_experts"](*rows, gate_up, down, top_k=2), x, ids, weights)


@pytest.mark.parametrize(("heads", "size"), [(7, 34), (32, 80), (24, 128)])
def test_rotations(heads: int, size: int) -> None:
    x, angles = normal(ROWS, heads, size), normal(ROWS, 1, size // 2, seed=1)
    rotation = torch.complex(angles.cos(), angles.sin())
    assert not differing(ALONE.rotate, x, rotation)
    assert torch.allclose(ALONE.rotate(x, rotation), TOGETHER.rotate(x, rotation), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(6, 2, 32), (3, 3, 8), (10, 2, 128)])
def test_attention(dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> None:
    """A prompt in chunks of any length, in rows side by side and scattered."""
    length = 150
    k, v = (normal(length, kv_heads, size, seed=seed).to(dtype) for seed in (1, 2))
    q, order = normal(length, heads, size).to(dtype), torch.randperm(length, generator=torch.Generator().manual_seed(3))
    together, scattered = LayerCache(k, v), LayerCache(k[order.argsort()], v[order.argsort()])
    whole = attend_each(q, together, Segment(0, length, 0, slice(0, length)), 0.2)
    for chunk in (1, 7, 64):
        for past in range(0, length - chunk, chunk + 30):
            new, stop = q[past : past + chunk].clone(), past + chunk
            for cache, rows in ((together, slice(0, stop)), (scattered, order[:stop])):
                assert torch.equal(attend_each(new, cache, Segment(0, chunk, past, rows), 0.2), whole[past:stop])
    close = attend_together(q, together, Segment(0, length, 0, slice(0, length)), 0.2)
    assert torch.allclose(whole.float(), close.float(), rtol=0, atol=1e-5 if dtype is torch.float32 else 2e-2)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_and_gates_of_a_tower(dtype: torch.dtype, width: int) -> None:
    functions, x = FUNCTIONS_ALONE, normal(ROWS, width).to(dtype)
    weight, bias = (normal(width, seed=seed).to(dtype) for seed in (1, 2))
    assert not differing(lambda rows: functions["layer_norm"](rows, weight, bias, eps=1e-6), x)
    assert not differing(partial(functions["gelu"], form="erf"), x)
    assert not differing(partial(functions["gelu"], form="quick"), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "size"), [(16, 80), (3, 8), (2, 34)])
def test_frames(dtype: torch.dtype, heads: int, size: int) -> None:
    """Each beside others, before and after it, of other lengths; and by itself."""
    lengths = (33, 1, 150, 7, 64)
    qkv = normal(sum(lengths), 3 * heads * size).to(dtype)
    cos, sin = normal(sum(lengths), size // 2, seed=1), normal(sum(lengths), size // 2, seed=2)
    attrs = {"num_heads": heads, "num_kv_heads": heads, "head_dim": size, "scale": size**-0.5}

    def attend(first: int, last: int) -> Tensor:
        rows = slice(sum(lengths[:first]), sum(lengths[:last]))
        of_frame = torch.repeat_interleave(torch.arange(first, last), torch.tensor(lengths[first:last]))
        function = FUNCTIONS_ALONE["rope_attention"]
        out: Tensor = function(
            qkv[rows].clone(), cos[rows], sin[rows], None, None, of_frame, None, None, None, None, None, **attrs
        )
        return out

    whole = attend(0, len(lengths)).split(lengths)
    for first in range(len(lengths)):
        for last in range(first + 1, len(lengths) + 1):
            assert torch.equal(attend(first, last), torch.cat(whole[first:last]))


def test_without_care_rows_depend_on_one_another() -> None:
    halves = normal(ROWS, 2, 1001).transpose(1, 2)
    weight = normal(512, 1001, seed=1)
    assert differing(lambda rows: FUNCTIONS["linear"](rows, weight), normal(ROWS, 1001))
    assert differing(FUNCTIONS["swiglu"], halves)


def test_gates_are_those_of_the_usual_mode() -> None:
    halves, x = normal(ROWS, 48, 2), normal(ROWS, 48)
    for name, function in (("swiglu", lambda of: of["swiglu"](halves)), ("gelu", lambda of: of["gelu"](x, form="erf"))):
        torch.testing.assert_close(function(FUNCTIONS_ALONE), function(FUNCTIONS), msg=name)


def test_what_is_refused() -> None:
    """Attention in order without a cache, which cannot tell a part from the whole; and devices whose kernels nobody has
    examined."""
    backend, target = EagerBackend(), Target(("cpu",), "float32", deterministic=True)
    b = Builder()
    q, sequence = b.input("q", TensorType("float32", ("N", 4, 8))), b.input("sequence", TensorType("int32", ("N",)))
    ordered, whole = (b("attention", q, q, q, None, sequence, index, scale=1.0) for index in (sequence, None))
    nodes = b.finish("main", {"ordered": ordered, "whole": whole}).nodes
    assert [type(backend.claims(node, target)) for node in nodes] == [Reject, Accept]
    assert isinstance(backend.claims(nodes[0], Target(("cpu",), "float32")), Accept)
    assert backend.not_deterministic(target) is None
    assert "mps" in (backend.not_deterministic(Target(("mps:0",), "float32")) or "")
