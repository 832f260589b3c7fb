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
    """Gumbel noise of each of these token ids, at one position of a sequence."""
    noise = np.empty(len(ids), np.float32)
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        noise[start : start + BLOCK] = _gumbel(np.choose(block & 3, words_of(block >> 2, seed, position)))
    return noise


def gumbel_below(count: int, seed: int, position: int) -> npt.NDArray[np.float32]:
    """Gumbel noise of every token id below `count`: four ids share one counter, so this is cheaper than one by one."""
    noise = np.empty((-(-count // 4), 4), np.float32)
    for start in range(0, len(noise), BLOCK):
        block = noise[start : start + BLOCK]
        for column, words in enumerate(words_of(np.arange(start, start + len(block)), seed, position)):
            block[:, column] = _gumbel(words)
    return noise.reshape(-1)[:count]


def words_of(groups: npt.NDArray[np.intp], seed: int, position: int) -> tuple[Words, Words, Words, Words]:
    """The random words of groups of four token ids, 4g to 4g + 3."""
    zero = np.zeros(1, np.uint64)
    counter = (groups.astype(np.uint64), zero + np.uint64(position), zero, zero)
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def _gumbel(words: Words) -> npt.NDArray[np.float64]:
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    noise: npt.NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise
