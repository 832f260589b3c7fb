"""From logits to tokens, as docs/sampling.md specifies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.errors import BackendError, ErnieRtError, OptionError
from ernie_rt.sampling.candidates import Row, the_best
from ernie_rt.sampling.draws import Draws, draw_each
from ernie_rt.sampling.margins import runner_up
from ernie_rt.sampling.state import SamplerState

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The log probability of a chosen token, and the likeliest tokens with theirs, best first.

    Where margins are asked for, `runner_up` is the token that would have been chosen without this one, and by how much
    less it had of what is compared: logits or, with a temperature, scores and noise. None: there was no other.
    """

    chosen: float
    top: tuple[tuple[int, float], ...]
    runner_up: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    token: int
    logprobs: Logprobs | None = None


def sample(row: Array, state: SamplerState) -> Sampled:
    """A token from the logits `[V]` of one sequence; its state is left for the caller to tell.

    BackendError when the row holds NaN or infinity; OptionError when the masks of the request leave no token.
    """
    (sampled,) = sample_rows(row[None], [state])
    if isinstance(sampled, ErnieRtError):
        raise sampled
    return sampled


def sample_rows(logits: Array | Sequence[Array], states: Sequence[SamplerState]) -> list[Sampled | ErnieRtError]:
    """`sample` of each row of `logits [L, V]`, in less time; what it would raise stands in the place of that row."""

    def adjusted(place: int) -> Array:
        row, state = logits[place], states[place]
        return row if state.drawable else penalise(row, state)

    failures = [_failure(state) for state in states]
    drawn = [state if failure is None else None for state, failure in zip(states, failures, strict=True)]
    draws = Draws.of(drawn, len(logits[0]) if states else 0)
    sampled: list[Sampled | ErnieRtError] = []
    for place, token in enumerate(draw_each(adjusted, draws).tolist()):
        known, params = logits[place][: draws.known[place]], states[place].params
        if (failure := failures[place]) is not None:
            sampled.append(failure)
        elif token < 0:
            sampled.append(_error(adjusted(place)[: len(known)], known))
        else:
            told = None
            if params.logprobs is not None or params.margins:
                told = _logprobs(known, token, params.logprobs or 0)
            if told is not None and params.margins:
                told = replace(told, runner_up=runner_up(adjusted(place)[: len(known)], states[place], token))
            sampled.append(Sampled(token, told))
    return sampled


@np.errstate(over="ignore")  # what overflows is found where the largest is looked at
def penalise(row: npt.NDArray[Any], state: SamplerState) -> Row:
    """A copy of the row in float32 after penalties, biases, masks and constraint."""
    params = state.params
    scores = row.astype(np.float32)
    if params.penalises:
        ids, counts = state.counted()
        values = scores[ids]
        repetition = np.float32(params.repetition_penalty)
        values = np.where(values > 0, values / repetition, values * repetition)
        values -= np.float32(params.presence_penalty) * (counts > 0).astype(np.float32)
        values -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
        scores[ids] = values
    if params.masks:
        scores[state.bias_ids] += state.biases
        scores[state.masked()] = -np.inf
        if state.allowed is not None:
            allowed = scores[state.allowed]
            scores.fill(-np.inf)
            scores[state.allowed] = allowed
    if state.constrained:
        _constrain(scores, state)
    if state.vocab_size is not None:
        scores[state.vocab_size :] = -np.inf
    return scores


def _constrain(scores: Row, state: SamplerState) -> None:
    """Rule out what the constraint of the sequence does."""
    mask = state.mask()
    stops = [id for id in state.stop_ids if id < len(scores)]
    ends = scores[stops] if state.may_end else np.float32(-np.inf)
    if mask is not None:
        known = mask[: len(scores)]
        np.copyto(scores[: len(known)], -np.inf, where=~known)
        scores[len(known) :] = -np.inf
    if mask is None or state.may_end:
        scores[stops] = ends


def _failure(state: SamplerState) -> ErnieRtError | None:
    """What keeps the constraint of a sequence from saying what may come next."""
    try:
        state.mask()
        state.may_end  # noqa: B018
    except ErnieRtError as error:
        return error
    return None


def _error(scores: Array, row: Array) -> ErnieRtError:
    """Why nothing can be chosen of these scores, which penalties and masks have made of the row."""
    best = scores.max()
    if best == -np.inf and row.max() > -np.inf:
        return OptionError(
            "no token is left to choose", found="every one is masked", hint="Allow more ids, or fewer bad words"
        )
    what = "NaN" if np.isnan(best) else "no finite number" if best == -np.inf else "infinity"
    return BackendError(f"the logits hold {what}", hint="Run the same prompt with `--backend reference` to compare")


@np.errstate(invalid="ignore")  # where an infinity is masked there is no probability
def _logprobs(row: npt.NDArray[Any], token: int, count: int) -> Logprobs:
    values = row.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    top = the_best(values, count) if 0 < count < len(values) else np.arange(len(values) if count else 0)
    top = top[np.argsort(-values[top], kind="stable")]
    return Logprobs(float(values[token]), tuple((int(id), float(values[id])) for id in top))
