"""Tokens drawn where the logits are, as docs/sampling.md specifies it; nothing waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from ernie_rt.contract import Draws
from ernie_rt.sampling.state import SamplerState
from ernie_rt_cudagraph.inputs import DeviceDraws, device_draws
from ernie_rt_cudagraph.kernels import sampling as kernels
from ernie_rt_cudagraph.launch import current, launch
from ernie_rt_eager.sampler import penalise


def is_greedy(draws: Draws) -> bool:
    """Whether every row asks for the largest logit."""
    return not draws.temperature.any()


def draw(
    logits: Tensor, draws: DeviceDraws, *, greedy: bool, pdl: bool = False, largest: Tensor | None = None
) -> Tensor:
    """A token, int32, for each row of `logits [L, V]`, float32; -1 for a row without a number, or a draw.

    Chooses what `ernie_rt.sampling.draws.draw` does. With `greedy` all temperatures are 0, and the `largest` logits of
    parts of the rows are enough, which the head may have found (`blocks.head`).
    """
    rows, vocabulary = logits.shape
    sizes = kernels.tiles(vocabulary)
    chunks = triton.cdiv(vocabulary, sizes.chunk)
    if largest is None or not greedy:
        largest = _empty(logits, torch.int64, chunks)
        launch(
            kernels.find_largest, (rows, chunks), logits=logits, knowns=draws.known, largest=largest,
            V=vocabulary, CHUNKS=chunks, CHUNK=sizes.chunk, PDL=pdl,
        )  # fmt: skip
    if not greedy:
        largest = _drawn(logits, largest, draws, sizes, pdl)
    tokens = _empty(logits, torch.int32)
    launch(
        kernels.find_token, (rows,), num_warps=8, largest=largest, tokens=tokens, COUNT=largest.shape[1],
        BLOCK=min(4096, triton.next_power_of_2(largest.shape[1])), PDL=pdl,
    )  # fmt: skip
    return tokens


def _drawn(logits: Tensor, largest: Tensor, draws: DeviceDraws, sizes: kernels.Tiles, pdl: bool) -> Tensor:
    """What noise makes the largest in each chunk of each row, ranked with its id `[L, CHUNKS]`."""
    (rows, vocabulary), chunks = logits.shape, largest.shape[1]
    counts, weights = (_empty(logits, dtype, chunks, kernels.BINS.value) for dtype in (torch.int32, torch.int64))
    members, borders = (_empty(logits, torch.int32, width) for width in (vocabulary, 3))
    totals = _empty(logits, torch.int64)
    drawn = torch.empty_like(largest)
    filters: dict[str, Any] = {
        "largest": largest, "knowns": draws.known, "temperatures": draws.temperature, "top_ks": draws.top_k,
        "top_ps": draws.top_p, "min_ps": draws.min_p, "counts": counts, "V": vocabulary, "CHUNKS": chunks,
        "MANY": triton.next_power_of_2(chunks), "PDL": pdl,
    }  # fmt: skip
    each_chunk = {**filters, "logits": logits, "CHUNK": sizes.chunk}
    launch(kernels.split, (rows, chunks), **each_chunk, weights=weights, BLOCK=sizes.block)
    for weighed in (False, True):
        found: dict[str, Any] = {"weights": weights, "members": members, "totals": totals, "WEIGHED": weighed}
        launch(kernels.gather, (rows, chunks), **each_chunk, **found)
        launch(kernels.settle, (rows,), **filters, **found, borders=borders, BLOCK=sizes.members, WAYS=sizes.ways)
    launch(
        kernels.find_drawn, (rows, chunks), **each_chunk, seeds=draws.seed, positions=draws.position,
        members=members, borders=borders, drawn=drawn, BLOCK=sizes.members,
    )  # fmt: skip
    return drawn


def _empty(logits: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    """Something of each row of logits, where they are."""
    return torch.empty(len(logits), *shape, dtype=dtype, device=logits.device)


@torch.inference_mode()
def sample_rows(logits: np.ndarray, states: Sequence[SamplerState], device: str) -> np.ndarray:
    """A token for each row of logits in main memory, chosen on a device: what the conformance suite calls."""
    scores = torch.tensor(logits, dtype=torch.float32, device=device)
    for row, state in zip(scores, states, strict=True):
        penalise(row, state)
    draws = Draws.of(states, scores.shape[1])
    with current(scores.device):
        return draw(scores, device_draws(draws, scores.device), greedy=is_greedy(draws)).cpu().numpy()
