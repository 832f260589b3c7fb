"""docs/sampling.md once more, one token at a time, in Python's own numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ernie_rt.sampling.params import SamplingParams
from ernie_rt.sampling.state import SamplerState
from support.toy import VOCAB, next_token

f32 = np.float32
MASK = 0xFFFFFFFF


def state_of(
    params: SamplingParams,
    prompt: Sequence[int] = (0,),
    generated: Sequence[int] = (),
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
) -> SamplerState:
    state = SamplerState(params, prompt, stop_ids, vocab_size)
    for token in generated:
        state.accept(token)
    return state


def philox_word(token: int, seed: int, position: int) -> int:
    c = [token >> 2, position, 0, 0]
    k = [seed & MASK, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & MASK, (first >> 32) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c[token & 3]


def noise(token: int, seed: int, position: int) -> np.float32:
    return f32(-math.log(-math.log((philox_word(token, seed, position) + 0.5) / 2**32)))


def adjusted(
    row: np.ndarray,
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
) -> list[np.float32]:
    """After penalties, biases and masks."""
    scores = [f32(value) for value in row]
    counts = Counter(generated)
    for token in {*prompt, *generated}:
        r = f32(params.repetition_penalty)
        scores[token] = scores[token] / r if scores[token] > 0 else scores[token] * r
        if counts[token]:
            scores[token] -= f32(params.presence_penalty)
        scores[token] -= f32(params.frequency_penalty) * f32(counts[token])
    for token, bias in params.logit_bias.items():
        scores[token] += f32(bias)
    tokens = [*prompt, *generated]
    masked = {word[-1] for word in params.bad_words if tokens[len(tokens) + 1 - len(word) :] == list(word[:-1])}
    if len(generated) < params.min_new_tokens:
        masked |= set(stop_ids)
    for token in range(len(scores)):
        if (
            token in masked
            or (params.allowed_ids is not None and token not in params.allowed_ids)
            or (vocab_size is not None and token >= vocab_size)
        ):
            scores[token] = f32(-np.inf)
    return scores


def kept(scores: Sequence[np.float32], params: SamplingParams) -> list[int]:
    """What the filters leave of scores after temperature, best first."""
    order = sorted((token for token in range(len(scores)) if scores[token] > -np.inf), key=lambda t: (-scores[t], t))
    if params.top_k:
        order = order[: params.top_k]
    best = float(scores[order[0]])
    weights = {token: round(math.exp(float(scores[token]) - best) * 2**30) for token in order}
    if params.min_p:
        order = [token for token in order if weights[token] >= params.min_p * 2**30]
    if params.top_p < 1:
        limit = params.top_p * sum(weights[token] for token in order)
        before, left = 0, []
        for token in order:
            if before < limit:
                left.append(token)
            before += weights[token]
        order = left
    return order


def specified(
    row: np.ndarray,
    params: SamplingParams,
    prompt: Sequence[int] = (0,),
    generated: Sequence[int] = (),
    stop_ids: Sequence[int] = (),
    vocab_size: int | None = None,
) -> int:
    """The token."""
    scores = adjusted(row, params, prompt, generated, stop_ids, vocab_size)
    if params.temperature == 0:
        return min(range(len(scores)), key=lambda t: (-scores[t], t))
    scores = [score / f32(params.temperature) for score in scores]
    assert params.seed is not None
    drawn = {t: scores[t] + noise(t, params.seed, len(prompt) + len(generated)) for t in kept(scores, params)}
    return min(drawn, key=lambda t: (-drawn[t], t))


def sampled_answer(
    ids: Sequence[int], max_new_tokens: int, params: SamplingParams, stop_ids: Sequence[int] = ()
) -> list[int]:
    """The continuation that a run on a ToyExecutable must give."""
    generated: list[int] = []
    while len(generated) < max_new_tokens and not (generated and generated[-1] in stop_ids):
        row = np.zeros(VOCAB, np.float32)
        row[next_token([*ids, *generated])] = 1.0
        generated.append(specified(row, params, ids, generated, stop_ids))
    return generated
