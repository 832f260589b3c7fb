"""The head's logits, and the largest of them; embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_rt.sampling.draws import Draws, draw
from ernie_rt_cudagraph import sampling
from ernie_rt_cudagraph.blocks.embed import embed
from ernie_rt_cudagraph.blocks.head import HeadOutput, head
from ernie_rt_cudagraph.inputs import device_draws
from ernie_rt_cudagraph.launch import listed
from support.kernels import check_near, meaning, normal

EPS = 1e-5
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@settings(max_examples=16, deadline=None)
@given(st.data())
def test_logits_and_the_largest(data: st.DataObject) -> None:
    dtype = data.draw(DTYPES)
    # So many logits that their errors are not those of one sum that happens to be nearly 0.
    tokens, width, vocabulary = (data.draw(st.integers(*sizes)) for sizes in ((1, 9), (1, 90), (40, 300)))
    picked = torch.tensor(data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=20)), dtype=torch.int32)
    known = torch.tensor([data.draw(st.integers(0, vocabulary)) for _ in picked], dtype=torch.int32)
    x, norm = normal(tokens, width, seed=0, dtype=dtype), normal(width, seed=1, dtype=dtype, mean=1, scale=0.2)
    weight = normal(vocabulary, width, seed=2, dtype=dtype, scale=width**-0.5)
    bias = normal(vocabulary, seed=3, dtype=dtype) if data.draw(st.booleans()) else None
    for row in set(range(tokens)) - set(picked.tolist()):
        x[row] = torch.nan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_rt_cudagraph.blocks.head.FEW_ROWS", 0)
        output = HeadOutput(known=known)
        with listed() as launches:
            rough = head(x, norm, weight, bias, picked, eps=EPS, output=output)
        assert not launches and output.largest is None
    logits = head(x, norm, weight, bias, picked, eps=EPS, output=output)
    check_near(logits, rough, meaning("head", x, norm, weight, bias, picked.numpy(), eps=EPS))

    draws = replace(Draws.greedy(len(picked), 0), known=known.numpy())
    told = device_draws(draws, x.device)
    with listed() as launches:
        sampling.draw(logits, told, greedy=True, largest=output.largest)
    assert len(launches) == 1
    chosen = sampling.draw(logits, told, greedy=True, largest=output.largest)
    assert chosen.tolist() == draw(logits.numpy(), draws).tolist()


def test_nothing_is_looked_for_unasked() -> None:
    x, norm, weight = normal(3, 16, seed=0), torch.ones(16), normal(40, 16, seed=1)
    rows, output = torch.arange(3, dtype=torch.int32), HeadOutput(largest=torch.zeros(3, 1, dtype=torch.int64))
    logits = head(x, norm, weight, None, rows, eps=EPS, output=output)
    assert output.largest is None
    assert torch.equal(logits, head(x, norm, weight, None, rows, eps=EPS, output=HeadOutput()))


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (2, 1), (3, 2), (128, 2)])
def test_launches(rows: int, count: int) -> None:
    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    picked = empty(rows, dtype=torch.int32)
    with listed() as launches:
        x, norm, weight = empty(rows, 2560), empty(2560), empty(103_424, 2560)
        logits = head(x, norm, weight, None, picked, eps=EPS, output=HeadOutput(), pdl=True)
    assert len(launches) == count and all(launch.arguments["PDL"] for launch in launches)
    assert logits.shape == (rows, 103_424) and logits.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embed(dtype: torch.dtype) -> None:
    table, ids = normal(11, 6, seed=0, dtype=dtype), torch.tensor([3, 0, 10, 3], dtype=torch.int32)
    assert np.array_equal(embed(ids, table).double().numpy(), meaning("embed", ids.numpy(), table))
