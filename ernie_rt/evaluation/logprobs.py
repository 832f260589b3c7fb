"""Log probabilities of given tokens, in float64, of logits that nobody keeps.

They are those of the model's whole softmax, ids that the tokenizer has no token for included, as others count them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ernie_rt.session import Model

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

AT_ONCE: Final = 1 << 21
"""Logits that are widened to float64 together: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """How likely a continuation is: the log probability of all its tokens, in nats, and whether each of them is the
    likeliest, so that a greedy answer would be this one."""

    logprob: float
    greedy: bool


def continuations(model: Model, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Continuation]:
    """How likely each continuation is behind its context, both as ids; a context has at least one.

    All run together, as far as the model's `max_sequences` lets them.
    """
    places = [len(context) - 1 for context, _ in pairs]  # of the token that the first prediction follows
    targets = [np.array(continuation, np.int64) for _, continuation in pairs]
    found = [np.zeros(len(target)) for target in targets]
    best = [np.zeros(len(target), bool) for target in targets]

    def visit(number: int, place: int, logits: Array) -> None:
        skipped = max(places[number] - place, 0)
        for start, rows in pieces(logits[skipped:]):
            first = place + skipped + start - places[number]
            here = slice(first, first + len(rows))
            each = log_softmax(rows)
            found[number][here] = np.take_along_axis(each, targets[number][here, None], -1)[:, 0]
            best[number][here] = each.argmax(-1) == targets[number][here]

    asked = [number for number, target in enumerate(targets) if len(target)]
    model.visit_logits(
        [(*pairs[number][0], *pairs[number][1][:-1]) for number in asked],
        lambda number, place, logits: visit(asked[number], place, logits),
    )
    return [Continuation(float(one.sum()), bool(all_best.all())) for one, all_best in zip(found, best, strict=True)]


def pieces(logits: Array) -> Iterator[tuple[int, Array]]:
    """Some rows at a time, each with the place of the first."""
    step = max(1, AT_ONCE // logits.shape[1])
    for start in range(0, len(logits), step):
        yield start, logits[start : start + step]


def log_softmax(rows: Array) -> Floats:
    x = rows.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x
