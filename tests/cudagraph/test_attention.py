"""The attention of decodes over the pages of a cache, and the block around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ernie_rt.contract import Step
from ernie_rt_cudagraph.blocks.attention import attention_block
from ernie_rt_cudagraph.inputs import Decodes
from ernie_rt_cudagraph.kernels import attention as kernels
from ernie_rt_cudagraph.kernels.attention import Split, decode_attention
from ernie_rt_cudagraph.launch import listed
from ernie_rt_eager.attention import Context, LayerCache
from support.kernels import check_near, meaning, normal

EPS = 1e-5
PAGE_SIZE = 16
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@dataclass(frozen=True)
class Scene:
    """Sequences in a cache: what lies in it before a step of decodes, and what the step says, in every form.

    Rows of the cache that are no token's are full of NaN, and pages lie in disorder. `padding` rows follow the tokens.
    """

    step: Step
    decodes: Decodes
    cache: LayerCache

    @classmethod
    def of(cls, past: Sequence[int], kv_heads: int, head_dim: int, dtype: torch.dtype, *, padding: int = 0) -> Scene:
        count, width = len(past), -(-(max(past) + 1) // PAGE_SIZE)
        order = np.random.default_rng(0).permutation(count * width).astype(np.int32)
        tables = order.reshape(count, width)
        seats = np.arange(count, dtype=np.int32)[::-1].copy()
        step = Step(
            ids=np.zeros(count, np.int32),
            query_start=np.arange(count + 1, dtype=np.int32),
            past=np.array(past, np.int32),
            tables=tables,
            page_size=PAGE_SIZE,
            seats=seats,
            rows=np.arange(count, dtype=np.int32),
        )
        shape = (count * width * PAGE_SIZE, kv_heads, head_dim)
        cache = LayerCache(*(torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)))
        before = np.setdiff1d(step.context, step.write)
        for seed, rows in enumerate((cache.k, cache.v)):
            rows[before] = normal(len(before), kv_heads, head_dim, seed=seed, dtype=dtype)
        by_seat = np.full((count + 1, width), tables.max(), np.int32)  # padding's page is somebody else's
        by_seat[seats] = tables
        index = np.concatenate([step.past, np.full(padding, -1, np.int32)])
        seat = np.concatenate([seats, np.full(padding, count, np.int32)])
        decodes = Decodes(*(torch.from_numpy(each.astype(np.int32)) for each in (index, seat, by_seat)), PAGE_SIZE)
        return cls(step, decodes, cache)

    def copy(self) -> LayerCache:
        return LayerCache(self.cache.k.clone(), self.cache.v.clone())

    def state(self) -> np.ndarray:
        """The cache as the reference has it `[R, 2, K, D]`."""
        return torch.stack([self.cache.k, self.cache.v], 1).double().numpy()

    @property
    def indices(self) -> tuple[np.ndarray, ...]:
        step = self.step
        return step.sequence, step.index, step.write, step.context, step.context_sequence, step.context_index


def check_block(
    past: Sequence[int], share: int, kv_heads: int, head_dim: int, hidden: int, dtype: torch.dtype,
    *, padding: int = 0, biased: bool = False, rows_of_angles: bool = False,
) -> None:  # fmt: skip
    """A step of decodes by kernels, beside the block's float64 meaning and eager's functions."""
    scene = Scene.of(past, kv_heads, head_dim, dtype, padding=padding)
    count, heads = len(past), share * kv_heads
    packed = (heads + 2 * kv_heads) * head_dim
    x = normal(count, hidden, seed=2, dtype=dtype)
    norm = normal(hidden, seed=3, dtype=dtype, mean=1, scale=0.2)
    qkv = normal(packed, hidden, seed=4, dtype=dtype, scale=hidden**-0.5)
    out = normal(hidden, heads * head_dim, seed=5, dtype=dtype, scale=(heads * head_dim) ** -0.5)
    biases = (normal(packed, seed=6, dtype=dtype), normal(hidden, seed=7, dtype=dtype)) if biased else (None, None)
    angles = normal(max(past) + 1, head_dim // 2, seed=8)
    cos, sin, positions = angles.cos(), angles.sin(), scene.decodes.index[:, None]
    if rows_of_angles:
        places = scene.decodes.index.clamp_min(0)  # padding has a row too
        cos, sin = cos[places], sin[places]
    attrs = {
        "eps": EPS, "num_heads": heads, "num_kv_heads": kv_heads, "head_dim": head_dim, "scale": head_dim**-0.5,
    }  # fmt: skip
    first = (norm, qkv, biases[0], out, biases[1])

    state = scene.state()
    exact = meaning(
        "attention_block", x, *first, cos[:count] if rows_of_angles else cos,
        sin[:count] if rows_of_angles else sin, state,
        None if rows_of_angles else positions[:count].numpy(), *scene.indices, **attrs,
    )  # fmt: skip
    usual = scene.copy()
    rough = attention_block(
        x, *first, cos[:count] if rows_of_angles else cos, sin[:count] if rows_of_angles else sin, usual,
        None if rows_of_angles else positions[:count].long(), None, None, None,
        Context(scene.step, torch.device("cpu")), None, None, **attrs,
    )  # fmt: skip
    wide = torch.cat([x, torch.full((padding, hidden), torch.nan, dtype=dtype)])
    found = attention_block(
        wide, *first, cos, sin, scene.cache, None if rows_of_angles else positions,
        None, None, None, scene.decodes, None, None, **attrs,
    )  # fmt: skip
    check_near(found[:count], rough, exact)
    known = ~np.isnan(state[:, 0, 0, 0])
    for half, (kernels_rows, usual_rows) in enumerate([(scene.cache.k, usual.k), (scene.cache.v, usual.v)]):
        check_near(kernels_rows[known], usual_rows[known], state[known, half])
        assert kernels_rows[~known].isnan().all(), "a row was written that no token owns"


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_block(data: st.DataObject) -> None:
    past = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    share, kv_heads = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    head_dim = 2 * data.draw(st.integers(1, 9))
    assume(share * kv_heads * head_dim >= 16)  # of few numbers eager's may be nearer by luck
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "MAX_SPLITS", 2)
        check_block(
            past, share, kv_heads, head_dim, data.draw(st.integers(1, 40)), data.draw(DTYPES),
            padding=data.draw(st.integers(0, 3)), biased=data.draw(st.booleans()),
            rows_of_angles=data.draw(st.booleans()),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("past", "dtype"), [([0], torch.bfloat16), ([300, 0, 63], torch.float32), ([64] * 33, torch.bfloat16)]
)
def test_block_at_edges(past: list[int], dtype: torch.dtype) -> None:
    """First tokens, ends of tiles, shares without a token, and rows enough to fill a GPU."""
    check_block(past, 5, 1, 8, 24, dtype, padding=2)


def test_every_split_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene.of([200, 3], 2, 8, torch.float32)
    for rows in (scene.cache.k, scene.cache.v):
        rows[scene.step.write] = normal(2, 2, 8, seed=9)
    q = normal(2, 6, 8, seed=10)
    found = {}
    for splits in (1, 2, 8):
        monkeypatch.setattr(kernels, "MAX_SPLITS", splits)
        found[splits] = decode_attention(q, scene.cache, scene.decodes, scale=0.5)
    for out in found.values():
        torch.testing.assert_close(out, found[1], atol=1e-6, rtol=1e-5)


def test_scores_that_overflow_alone() -> None:
    """Weights come from differences of scores, also between the shares of a sequence."""
    scene = Scene.of([150], 1, 8, torch.float32)
    for rows in (scene.cache.k, scene.cache.v):
        rows[scene.step.write] = normal(1, 1, 8, seed=9)
    q = 1e4 * normal(1, 2, 8, seed=10)
    found = decode_attention(q, scene.cache, scene.decodes, scale=1.0)
    keys, values = (rows[scene.step.context][:, 0].double() for rows in (scene.cache.k, scene.cache.v))
    exact = (q[0].double() @ keys.T).softmax(-1) @ values
    torch.testing.assert_close(found.double().reshape(2, 8), exact, atol=1e-3, rtol=1e-3)


def test_padding_gives_zeros() -> None:
    scene = Scene.of([20], 1, 8, torch.float32, padding=3)
    scene.cache.k[scene.step.write] = scene.cache.v[scene.step.write] = 1.0
    found = decode_attention(
        torch.tensor([1.0] + 3 * [torch.nan])[:, None, None].expand(4, 2, 8).contiguous(),
        scene.cache,
        scene.decodes,
        scale=1.0,
    )
    assert (found[1:] == 0).all()


@pytest.mark.parametrize(
    ("rows", "kv_heads", "splits"), [(1, 4, 32), (1, 1, 32), (2, 4, 16), (3, 4, 8), (8, 4, 4), (64, 8, 1)]
)
def test_splits_fill_a_gpu(rows: int, kv_heads: int, splits: int) -> None:
    assert splits == Split.of(rows, kv_heads, 256).SPLITS


@pytest.mark.parametrize(("rows", "kernels_started"), [(1, 4), (8, 5), (32, 4)])
def test_launches_are_listed_of_tensors_without_memory(rows: int, kernels_started: int) -> None:
    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    decodes = Decodes(*(meta(*shape, dtype=torch.int32) for shape in [(rows,), (rows,), (rows + 1, 256)]), PAGE_SIZE)
    angles = meta(4096, 64, dtype=torch.float32)
    with listed() as launches:
        found = attention_block(
            meta(rows, 2560), meta(2560), meta(3584, 2560), None, meta(2560, 2560), None, angles, angles,
            LayerCache(meta(4096, 4, 128), meta(4096, 4, 128)), decodes.index[:, None],
            None, None, None, decodes, None, None,
            eps=EPS, num_heads=20, num_kv_heads=4, head_dim=128, scale=0.1, pdl=True,
        )  # fmt: skip
    assert found.shape == (rows, 2560)
    assert len(launches) == kernels_started
    assert all(launch.arguments["PDL"] is True for launch in launches)
