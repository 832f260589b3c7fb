"""The sampler of docs/sampling.md for logits that are on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ernie_rt.sampling.candidates import UNIT
from ernie_rt.sampling.draws import Draws
from ernie_rt.sampling.philox import MULTIPLIERS, ROUNDS, WEYL
from ernie_rt.sampling.state import SamplerState

LOW = 0xFFFFFFFF


@torch.inference_mode()
def draw(logits: Tensor, draws: Draws) -> Tensor:
    """A token, int32, for each row of `logits [L, V]`, on their device; -1 for a row without a number, or a draw.

    Chooses what `ernie_rt.sampling.draws.draw` does of these logits in float32, unless float64 logarithms of two
    libraries tip the scales. It waits for no result.
    """
    if logits.device.type == "mps":  # which has no float64
        return draw(logits.cpu(), draws).to(logits.device)

    def column(values: np.ndarray) -> Tensor:
        there = torch.from_numpy(np.ascontiguousarray(values))[:, None]  # [L, 1]
        return there.pin_memory().to(logits.device, non_blocking=True) if logits.is_cuda else there

    places = torch.arange(logits.shape[1], device=logits.device)  # [V]
    scores = torch.where(places < column(draws.known), logits.float(), -torch.inf)
    # Both operands are tensors: a GPU multiplies by the reciprocal of a number.
    scores = scores / column(np.where(draws.temperature > 0, draws.temperature, np.float32(1)))
    choosable = scores.amax(-1).isfinite()
    ids = places.expand_as(scores)
    if ((draws.top_k > 0) | (draws.top_p < 1) | (draws.min_p > 0)).any():
        scores, ids = torch.sort(scores, dim=-1, descending=True, stable=True)  # the lowest id first among equals
        weights = torch.exp(scores.double() - scores[:, :1].double()).mul_(UNIT).round_().long()
        kept = places < column(np.where(draws.top_k > 0, draws.top_k, scores.shape[1]))
        kept &= (scores > -torch.inf) & (weights.double() >= column(draws.min_p * UNIT))
        weights = torch.where(kept, weights, 0)
        limit = column(draws.top_p) * weights.sum(-1, keepdim=True).double()
        kept &= ((weights.cumsum(-1) - weights).double() < limit) | column(draws.top_p == 1)
        scores = torch.where(kept, scores, -torch.inf)
    if (draws.temperature > 0).any():
        low, high = draws.seed & np.uint64(LOW), draws.seed >> np.uint64(32)
        noise = gumbel(ids, *(column(words.astype(np.int64)) for words in (low, high, draws.position)))
        scores = torch.where(column(draws.temperature > 0), scores + noise, scores)
    tokens = torch.where(scores == scores.amax(-1, keepdim=True), ids, scores.shape[1]).amin(-1)
    return torch.where(choosable, tokens, -1).int()


@torch.inference_mode()
def sample_rows(logits: np.ndarray, states: Sequence[SamplerState], device: str) -> np.ndarray:
    """A token for each row of logits in main memory, chosen on a device: what the conformance suite calls."""
    scores = torch.tensor(logits, dtype=torch.float32, device=device)
    for row, state in zip(scores, states, strict=True):
        penalise(row, state)
    return draw(scores, Draws.of(states, scores.shape[1])).cpu().numpy()


def gumbel(ids: Tensor, low: Tensor, high: Tensor, position: Tensor) -> Tensor:
    """The Gumbel noise of token ids `[L, K]`, each row with the seed, in halves, and the position of its sequence."""
    zero = torch.zeros_like(ids)
    words = philox((ids >> 2, position + zero, zero, zero), (low, high))
    word = torch.stack(words).gather(0, (ids & 3)[None])[0]
    return (-torch.log(-torch.log((word.double() + 0.5) * 2.0**-32))).float()


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 of 32-bit words in int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = _multiply(c0, MULTIPLIERS[0]), _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The high and the low 32 bits of a product of 64, which int64 has no room for: by halves of 16 bits."""
    upper, lower = (word >> 16) * factor, (word & 0xFFFF) * factor
    return (upper + (lower >> 16)) >> 16, ((upper << 16) + lower) & LOW


def penalise(row: Tensor, state: SamplerState) -> None:
    """Penalties, biases and masks, in place."""
    params = state.params

    def on_device(values: object, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=row.device)

    if params.penalises:
        ids, counts = state.counted()
        places, count = on_device(ids, torch.int64), on_device(counts, torch.float32)
        repetition, presence, frequency = on_device(
            [params.repetition_penalty, params.presence_penalty, params.frequency_penalty], torch.float32
        )
        values = row[places]
        values = torch.where(values > 0, values / repetition, values * repetition)
        values = values - presence * (count > 0).float()
        row[places] = values - frequency * count
    if params.masks:
        row[on_device(state.bias_ids, torch.int64)] += on_device(state.biases, torch.float32)
        row[on_device(state.masked(), torch.int64)] = -torch.inf
        if state.allowed is not None:
            ruled_out = torch.ones_like(row, dtype=torch.bool)
            ruled_out[on_device(state.allowed, torch.int64)] = False
            row[ruled_out] = -torch.inf
