"""The draw of docs/sampling.md: the largest sum of a score and its noise, among what the filters keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ernie_rt.sampling.candidates import Candidates, Places, Row, Space, the_best
from ernie_rt.sampling.philox import gumbel, noise_at, words_at, words_of

Key = tuple[np.uint64, np.uint64]
"""Seed and position."""

HEAD: Final = 64
"""So many of the best candidates of a row are drawn before the others."""
UNSURE: Final = -2
"""In place of a token that rough weights cannot tell."""


def drawn_of_each(rows: Sequence[Candidates], keys: Sequence[Key]) -> list[int]:
    """The token of each row; quickest for few candidates, which all get their noise in one pass."""
    if not rows:
        return []
    counts = [len(row.scores) for row in rows]
    columns = np.array(keys, np.uint64).T
    seed, position = np.repeat(columns, counts, 1) if len(rows) > 1 else columns[:, 0]
    drawn = noise_at(np.concatenate([row.ids for row in rows]), seed, position)
    drawn += np.concatenate([row.scores for row in rows])
    parts = np.split(drawn, np.cumsum(counts)[:-1])
    return [_kept(row, np.arange(len(part)), part) for row, part in zip(rows, parts, strict=True)]


def drawn_of(row: Candidates, key: Key, space: Space) -> int:
    """The token of one row, quickest for many candidates.

    Each has its random word, but few need their noise. Some of the best ones, which are kept for certain, are drawn
    first; the others win only with a larger noise than a bound, and so a larger word.
    """
    words = _words(row, key, space)
    head = the_best(row.scores, HEAD) if len(row.scores) > HEAD else np.arange(len(row.scores))
    if not row.keeps_all(head):
        head = np.array([row.scores.argmax()])
    most = row.scores[head].min() if len(head) > 1 else row.scores[head[0]]
    drawn = row.scores[head] + gumbel(words[head])
    bound = drawn.max()
    others = np.flatnonzero(words > word_below(bound, most))
    places = np.sort(np.concatenate([head[drawn == bound], others]))
    return _kept(row, places, row.scores[places] + gumbel(words[places]))


def _words(row: Candidates, key: Key, space: Space) -> npt.NDArray[np.uint32]:
    """The random word of each candidate."""
    count = len(row.scores) if row.ids is None else int(row.ids[-1]) + 1
    if row.ids is not None and 5 * len(row.ids) < count:
        return words_at(row.ids, *key, space.counters)
    groups = -(-count // 4)
    words = words_of(space.groups[:groups], *key, space.counters, space.words[:groups]).reshape(-1)
    return words[:count] if row.ids is None else words[row.ids]


def word_below(bound: np.float32, score: np.float32) -> int:
    """A word, and not a much smaller one than need be, with which no score of so much gets to a bound."""
    share = 1.01 * math.exp(float(score) - float(bound))  # of words, those whose noise is large enough
    while share < 1:
        word = min(int(2**32 * (1 - share)), 2**32 - 1)
        noise = np.float32(-math.log(-math.log((word + 0.5) / 2**32)))
        if score + np.nextafter(noise, np.float32(np.inf)) < bound:  # two logarithms may differ in the last bit
            return word
        share *= 2
    return -1


def _kept(row: Candidates, places: Places, drawn: Row) -> int:
    """The id of the largest drawn score that is kept; UNSURE if rough weights cannot tell.

    `places` ascend and hold all that can be it. When one is not kept, no worse one is. `drawn` is overwritten.
    """
    while True:
        place = int(places[drawn.argmax()])
        if row.weights is None:
            break
        better = row.better(place)
        keeps = row.keeps(better)
        if keeps is None:
            return UNSURE
        if keeps:
            break
        drawn[~better[places]] = -np.inf
    return place if row.ids is None else int(row.ids[place])
