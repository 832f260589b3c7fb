"""The sampler of docs/sampling.md for logits that are on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ernie_rt.errors import BackendError, OptionError
from ernie_rt.sampling.philox import MULTIPLIERS, ROUNDS, WEYL
from ernie_rt.sampling.sampler import UNIT
from ernie_rt.sampling.state import SamplerState

LOW = 0xFFFFFFFF


@torch.inference_mode()
def sample(logits: Tensor, states: Sequence[SamplerState]) -> Tensor:
    """A token, int32, for each row of `logits [L, V]`, on their device; the states are left for the caller to tell.

    Chooses what `ernie_rt.sampling.sampler.sample` does, unless float64 logarithms of two libraries tip the scales.
    BackendError when a row holds NaN or infinity, OptionError when masks leave no token: the check waits for it.
    """
    if logits.device.type == "mps":  # which has no float64
        return sample(logits.cpu(), states).to(logits.device)
    scores = logits.float().clone()
    for row, state in zip(scores, states, strict=True):
        _penalise(row, state)
    _check(scores, logits, states)
    params = [state.params for state in states]

    def column(values: list[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=scores.device)[:, None]  # [L, 1]

    temperature = column([p.temperature for p in params], torch.float32)
    greedy = temperature == 0
    # Both operands are tensors: a GPU multiplies by the reciprocal of a number.
    scores = scores / torch.where(greedy, torch.ones_like(temperature), temperature)
    ordered, ids = torch.sort(scores, dim=-1, descending=True, stable=True)  # [L, V], the lowest id first among equals
    weights = torch.exp(ordered.double() - ordered[:, :1].double()).mul_(UNIT).round_().long()
    places = torch.arange(scores.shape[1], device=scores.device)
    top_k = column([p.top_k or scores.shape[1] for p in params], torch.int64)
    min_p = column([p.min_p for p in params], torch.float64)
    top_p = column([p.top_p for p in params], torch.float64)
    kept = (places < top_k) & (ordered > -torch.inf) & (weights.double() >= min_p * UNIT)
    weights = torch.where(kept, weights, 0)
    limit = top_p * weights.sum(-1, keepdim=True).double()
    kept &= ((weights.cumsum(-1) - weights).double() < limit) | (top_p == 1)
    noise = gumbel(ids, [state.seed for state in states], [state.position for state in states])
    drawn = torch.where(kept, ordered + torch.where(greedy, torch.zeros_like(noise), noise), -torch.inf)
    best = drawn.amax(-1, keepdim=True)
    return torch.where(drawn == best, ids, scores.shape[1]).amin(-1).int()


def sample_rows(logits: np.ndarray, states: Sequence[SamplerState], device: str) -> np.ndarray:
    """`sample`, of logits in main memory that are brought to a device: what the conformance suite calls."""
    return sample(torch.from_numpy(logits).to(device), states).cpu().numpy()


def gumbel(ids: Tensor, seeds: Sequence[int], positions: Sequence[int]) -> Tensor:
    """The Gumbel noise of token ids `[L, K]`, each row with the seed and the position of its sequence."""

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=ids.device)[:, None]

    zero = torch.zeros_like(ids)
    words = philox(
        (ids >> 2, column(list(positions)) + zero, zero, zero),
        (column([seed & LOW for seed in seeds]), column([seed >> 32 for seed in seeds])),
    )
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


def _penalise(row: Tensor, state: SamplerState) -> None:
    """Penalties, biases and masks, in place."""
    params, vocab_size = state.params, row.shape[0] if state.vocab_size is None else state.vocab_size

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
    row[vocab_size:] = -torch.inf


def _check(scores: Tensor, logits: Tensor, states: Sequence[SamplerState]) -> None:
    best = scores.amax(-1)
    if bool(torch.isfinite(best).all()):
        return
    for score, row, state in zip(best.tolist(), logits, states, strict=True):
        if score == float("-inf") and float(row[: state.vocab_size].max()) > score:
            raise OptionError(
                "no token is left to choose", found="every one is masked", hint="Allow more ids, or fewer bad words"
            )
    raise BackendError("the logits hold NaN or infinity", hint="Run the same prompt with `--backend reference`")
