"""The block of experts, and the composite of experts alone, with few rows and many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ernie_rt.graph.builder import Builder
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.reference.ops import MEANINGS
from ernie_rt_cudagraph.blocks import moe
from ernie_rt_cudagraph.blocks.moe import moe_block, moe_experts
from ernie_rt_cudagraph.kernels.routing import MAX_EXPERTS
from ernie_rt_cudagraph.kernels.tiles import tile_sizes
from ernie_rt_cudagraph.launch import listed
from ernie_rt_eager import ops
from support.kernels import check_near, meaning, normal

EVERY = torch.tensor([1 << 30], dtype=torch.int32)
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """A block of random weights, as an executable lays them."""

    rows: int
    hidden: int = 24
    experts: int = 6
    top_k: int = 2
    width: int = 10
    shared: int = 20
    bias: bool = False
    correction: bool = True
    second: int = 0
    """How wide the experts of a second pool are; 0: there is none."""
    dtype: torch.dtype = torch.float32

    @property
    def attrs(self) -> dict[str, Any]:
        return {"top_k": self.top_k, "norm_min": 1e-12}

    def operands(self, device: str = "cpu") -> list[Tensor | None]:
        def weight(*shape: int, seed: int) -> Tensor:
            return normal(*shape, seed=seed, dtype=self.dtype, scale=shape[-1] ** -0.5)

        operands: list[Tensor | None] = [
            normal(self.rows, self.hidden, seed=0, dtype=self.dtype),
            normal(self.hidden, seed=1, dtype=self.dtype, mean=1, scale=0.2),
            normal(self.experts, self.hidden, seed=2, scale=2 * self.hidden**-0.5),
            normal(self.experts, seed=3, scale=0.1) if self.correction else None,
            weight(self.experts, 2, self.width, self.hidden, seed=4).transpose(1, 2),
            weight(self.experts, self.hidden, self.width, seed=5),
            *[None] * 4,
        ]
        if self.shared:
            operands[6] = weight(2, self.shared, self.hidden, seed=6).transpose(0, 1)
            operands[8] = weight(self.hidden, self.shared, seed=8)
        if self.shared and self.bias:
            operands[7] = normal(self.shared, 2, seed=7, dtype=self.dtype, scale=0.3)
            operands[9] = normal(self.hidden, seed=9, dtype=self.dtype, scale=0.3)
        if self.second:  # tokens of the first pool, of the second, of neither, of both
            place = torch.arange(self.rows)
            operands += [
                (place % 4 == 0) | (place % 4 == 3),
                (place % 4 == 1) | (place % 4 == 3),
                normal(self.experts, self.hidden, seed=10, scale=2 * self.hidden**-0.5),
                normal(self.experts, seed=11, scale=0.1) if self.correction else None,
                weight(self.experts, 2, self.second, self.hidden, seed=12).transpose(1, 2),
                weight(self.experts, self.hidden, self.second, seed=13),
            ]
        return [None if operand is None else operand.to(device) for operand in operands]

    def pools(self) -> list[tuple[Any, ...]]:
        """Of each its mask, gate, correction bias, gate and up, and down."""
        operands = self.operands()
        first = operands[10] if self.second else None
        return [(first, *operands[2:6])] + ([tuple(operands[11:])] if self.second else [])

    def eager(self) -> Tensor:
        x, norm, _, _, _, _, shared_gate_up, shared_bias, shared_down, down_bias, *_ = self.operands()
        assert x is not None and norm is not None
        y = ops.rms_norm(x, norm, eps=EPS)
        out = torch.zeros_like(x)
        for mask, gate, correction, gate_up, down in self.pools():
            ids, weights = ops.moe_route(y, gate, correction, **self.attrs)
            ids = ids if mask is None else ids.masked_fill(~mask[:, None], -1)
            out = out + ops.moe_experts(y, ids, weights, gate_up, down, top_k=self.top_k)
        if shared_gate_up is not None and shared_down is not None:
            out = out + ops.linear(ops.swiglu(ops.linear(y, shared_gate_up, shared_bias)), shared_down, down_bias)
        return x + out

    def exact(self) -> np.ndarray:
        return meaning("moe_block", *self.operands(), **self.attrs, eps=EPS)

    def gap(self) -> float:
        """How far the router's last choice is from what it left, at the closest."""
        x, norm, *_ = (None if o is None else o.double().numpy() for o in self.operands())
        if self.top_k == self.experts:
            return np.inf
        gaps = []
        for _, gate, correction, *_ in self.pools():
            scores = MEANINGS["softmax"](MEANINGS["rms_norm"](x, norm, eps=EPS) @ gate.double().numpy().T)
            scores = np.sort(scores if correction is None else scores + correction.double().numpy())
            gaps.append(float((scores[:, -self.top_k] - scores[:, -self.top_k - 1]).min()))
        return min(gaps)


@contextmanager
def few(rows: int) -> Iterator[None]:
    """Up to so many rows read their experts one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moe, "ONE_BY_ONE", rows)
        yield


def run(case: Case, operands: list[Tensor | None] | None = None, live: Tensor = EVERY) -> Tensor:
    return moe_block(*(operands or case.operands()), **case.attrs, eps=EPS, live=live, pdl=False)  # type: ignore[arg-type]


@settings(max_examples=7, deadline=None, derandomize=True, phases=(Phase.generate,))  # shrinking takes minutes
@given(st.data())
def test_any_block(data: st.DataObject) -> None:
    experts, flag = data.draw(st.integers(1, 9)), st.booleans()
    case = Case(
        data.draw(st.integers(1, 8)),
        hidden=data.draw(st.integers(20, 70)),
        experts=experts,
        top_k=data.draw(st.integers(1, min(experts, 4))),
        width=data.draw(st.integers(1, 40)),
        shared=data.draw(st.sampled_from([0, 1, 20, 33])),
        bias=data.draw(flag),
        correction=data.draw(flag),
        dtype=data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    )
    assume(case.gap() > (1e-5 if case.dtype is torch.float32 else 1e-2))  # or rounding might choose another expert
    rough, exact = case.eager(), case.exact()
    for most in (0, case.rows):
        with few(most):
            check_near(run(case), rough, exact)
    with few(0), pytest.MonkeyPatch.context() as patch:
        patch.setattr(moe, "FEW_ROWS", 0)  # as prompts are computed
        check_near(run(case), rough, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "most"), [(4, 4), (4, 0), (9, 0)])
def test_two_pools(rows: int, most: int, dtype: torch.dtype) -> None:
    """Tokens of each, of both and of neither; padding has a mask as well."""
    case = Case(rows, hidden=42, second=5, bias=True, dtype=dtype)
    assert case.gap() > 5e-3
    with few(most):
        found = run(case)
        check_near(found, case.eager(), case.exact())
        padded = run(case, live=torch.tensor([rows - 1], dtype=torch.int32))
    assert torch.equal(padded[:-1], found[:-1])


def test_experts_of_a_pool_that_nobody_is_sent_to_are_not_read() -> None:
    for rows in (1, 9):
        case = Case(rows, second=5)
        operands = case.operands()
        operands[10], operands[11] = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)
        usual = run(case, operands[:10])
        for weight in operands[14:]:
            assert weight is not None
            weight.fill_(torch.nan)
        assert torch.equal(run(case, operands), usual)


@pytest.mark.parametrize(("rows", "size"), [(6, 16), (20, 32), (40, 64), (70, 128)])
def test_tiles_of_all_sizes(rows: int, size: int) -> None:
    """Two experts, as many pairs each as there are rows."""
    case = Case(rows, hidden=40, experts=2, width=70)
    assert size == tile_sizes(rows * 2 / 2, 40, 4).M
    check_near(run(case), case.eager(), case.exact())


def test_an_expert_whom_everybody_chooses() -> None:
    """It needs two tiles, where others need none."""
    case = Case(60, experts=3, top_k=1)
    operands = case.operands()
    operands[3] = torch.tensor([0.0, 10, 0])
    exact = meaning("moe_block", *operands, **case.attrs, eps=EPS)
    assert tile_sizes(60 / 3, 24, 4).M == 32
    np.testing.assert_allclose(run(case, operands).numpy(), exact, rtol=0, atol=1e-5)


def test_many_experts_of_which_most_are_chosen_by_nobody() -> None:
    case = Case(7, experts=64, top_k=1)
    check_near(run(case), case.eager(), case.exact())


@pytest.mark.parametrize(("rows", "most"), [(3, 3), (3, 0), (9, 0), (66, 0)])
def test_rows_of_no_number_and_padding_leave_others_alone(rows: int, most: int) -> None:
    case, operands = Case(rows), Case(rows).operands()
    x = operands[0]
    assert x is not None
    with np.errstate(invalid="ignore"), few(most):
        usual = run(case)
        x[1] = torch.nan
        found = run(case, operands)
        assert found[1].isnan().all()
        kept = [row for row in range(rows) if row != 1]
        assert torch.equal(found[kept], usual[kept])

        x[1] = case.operands()[0][1]  # type: ignore[index]
        x[rows - 1 :] = torch.nan
        found = run(case, operands, live=torch.tensor([rows - 1], dtype=torch.int32))
    assert torch.equal(found[:-1], usual[:-1])


def test_padding_reads_no_experts() -> None:
    """Few rows of it write nothing at all; of many, no pair is in a group, which test_routing shows."""
    case = Case(4)
    with few(4):
        found = run(case, live=torch.tensor([3], dtype=torch.int32))
    assert found[:3].isfinite().all()
    assert found[3:].isnan().all()


def test_experts_alone() -> None:
    gate_up, down = normal(5, 2, 4, 6, seed=1).transpose(1, 2), normal(5, 6, 4, seed=2)
    x, weights = normal(9, 6, seed=0), torch.rand(9, 2, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[3, 0], [3, -1], [-1, -1], [3, 4], [0, 3], [4, 3], [3, 0], [-1, 3], [3, 0]])
    found = moe_experts(x, ids, weights, gate_up, down, top_k=2)
    rough = ops.moe_experts(x, ids, weights, gate_up, down, top_k=2)
    check_near(found, rough, meaning("moe_experts", x, ids.numpy(), weights, gate_up, down, top_k=2))
    assert not found[2].any()


def test_experts_alone_after_eagers_router() -> None:
    """Which gives a view of ids that do not lie side by side."""
    case = Case(9)
    x, _, gate, correction, gate_up, down, *_ = case.operands()
    assert x is not None and gate is not None and gate_up is not None and down is not None
    ids, weights = ops.moe_route(x, gate, correction, **case.attrs)
    assert not ids.is_contiguous()
    found = moe_experts(x, ids, weights, gate_up, down, top_k=2)
    rough = ops.moe_experts(x, ids, weights, gate_up, down, top_k=2)
    check_near(found, rough, meaning("moe_experts", x, ids.numpy(), weights, gate_up, down, top_k=2))


def test_gate_and_up_side_by_side() -> None:
    """Strides say how they lie."""
    case = Case(5, bias=True)
    operands = case.operands()
    for place in (4, 6):
        operands[place] = operands[place].contiguous()  # type: ignore[union-attr]
    assert torch.equal(run(case, operands), run(case))


@pytest.mark.parametrize("rows", [1, 2, 300])
def test_launches_are_listed_without_a_device(rows: int) -> None:
    case = Case(rows)
    with listed() as launches:
        out = run(case, case.operands("meta"), live=EVERY.to("meta"))
    assert out.shape == (rows, 24)
    assert launches


@pytest.mark.parametrize("experts", [MAX_EXPERTS, MAX_EXPERTS + 1])
def test_refusal(experts: int) -> None:
    build = Builder()
    x = build.input("x", TensorType("float32", ("N", 8)))
    shapes = {"norm": (8,), "gate": (experts, 8), "gate_up": (experts, 4, 2, 8), "down": (experts, 8, 4)}
    norm, gate, *weights = (
        Weight(name, TensorType("float32", dims), Plain("float32")) for name, dims in shapes.items()
    )
    y = build("moe_block", x, norm, gate, None, *weights, *[None] * 4, top_k=2, norm_min=1e-12, eps=EPS)
    (node,) = build.finish("main", {"y": y}).nodes
    refusal = moe.refusal(node)
    if experts > MAX_EXPERTS:
        assert refusal is not None
        assert str(experts) in refusal
    else:
        assert refusal is None
