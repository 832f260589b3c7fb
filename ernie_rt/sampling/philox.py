"""Philox4x32-10, a counter-based random generator, and Gumbel noise made of it.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10
LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)


BLOCK: Final = 4096
"""Counters at a time, so that what is computed of them stays in the nearest cache."""


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """The four random words of each counter; all words are 32 bits wide, in arrays of uint64 that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for _ in range(ROUNDS):
        first, second = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (
            (second >> HALF) ^ c1 ^ np.uint64(k0), second & LOW,
            (first >> HALF) ^ c3 ^ np.uint64(k1), first & LOW,
        )  # fmt: skip
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def gumbel(ids: npt.NDArray[np.intp], seed: int, position: int) -> npt.NDArray[np.float32]:
    """Gumbel noise of each of these token ids, at one position of a sequence; quickest when they ascend."""
    groups = ids >> 2
    first = np.ones(len(groups), bool)
    np.not_equal(groups[1:], groups[:-1], out=first[1:])
    words = words_of(groups[first], seed, position)
    return _gumbel(words.reshape(-1)[((first.cumsum() - 1) << 2) + (ids & 3)])


def gumbel_below(count: int, seed: int, position: int) -> npt.NDArray[np.float32]:
    """Gumbel noise of every token id below `count`."""
    return _gumbel(words_of(np.arange(-(-count // 4)), seed, position).reshape(-1)[:count])


def words_of(groups: npt.NDArray[np.intp], seed: int, position: int) -> npt.NDArray[np.uint32]:
    """The random words `[G, 4]` of groups of four token ids, 4g to 4g + 3."""
    words = np.empty((len(groups), 4), np.uint32)
    zero = np.zeros(1, np.uint64)
    for start in range(0, len(groups), BLOCK):
        block = slice(start, start + BLOCK)
        counter = (groups[block].astype(np.uint64), zero + np.uint64(position), zero, zero)
        for column, word in enumerate(philox(counter, (seed & 0xFFFFFFFF, seed >> 32))):
            words[block, column] = word
    return words


def _gumbel(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    noise = np.empty(len(words), np.float32)
    for start in range(0, len(words), BLOCK):
        block = slice(start, start + BLOCK)
        uniform = (words[block].astype(np.float64) + 0.5) * 2.0**-32
        noise[block] = -np.log(-np.log(uniform))
    return noise
