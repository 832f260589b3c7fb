"""Philox4x32-10, a counter-based random generator, and Gumbel noise made of it.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
"""Numbers of 32 bits, with room for their products."""
Word = Words | np.uint64 | int
"""An array of them, or one for all."""
Ids = npt.NDArray[np.integer[Any]]
Drawn = npt.NDArray[np.uint32]

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10
LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)

BLOCK: Final = 32_768
"""Counters at a time: enough that calls cost little, and few enough that what is computed of them stays in a cache."""
LINE: Final = 8
"""Words in a cache line, at the edge of which arithmetic is quickest."""


def philox(counter: Iterable[Words], keys: Iterable[tuple[Word, Word]]) -> tuple[Words, Words]:
    """Rounds of counters `[4, n]`, of which the second and the fourth word come in their upper halves.

    Gives the first two words in one number, the second above the first, and the other two. All is computed in the
    memory of the counters. A round multiplies, and joins the upper halves of the products with the lower ones of the
    round before, which wait in upper halves so that one shift cleans both.
    """
    m0, m1, half = (np.array(number, np.uint64) for number in (*MULTIPLIERS, 32))
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        c0 *= m0
        c2 *= m1
        c1 ^= c2
        c1 >>= half
        c1 ^= k0
        c3 ^= c0
        c3 >>= half
        c3 ^= k1
        c0 <<= half
        c2 <<= half
        c0, c1, c2, c3 = c1, c2, c3, c0
    c1 |= c0
    c3 |= c2
    return c1, c3


def round_keys(seed: Word) -> list[tuple[Word, Word]]:
    """The keys of the rounds, made of seeds of 64 bits."""
    (w0, w1), low, high = WEYL, seed & LOW, seed >> HALF
    return [((low + np.uint64(n * w0)) & LOW, (high + np.uint64(n * w1)) & LOW) for n in range(ROUNDS)]


def memory(counters: int) -> Words:
    """Memory `[4, n]` for so many counters, or for a block where they are more."""
    width = -(-min(counters, BLOCK) // LINE) * LINE
    raw = np.empty(4 * width + LINE, np.uint64)
    start = -raw.ctypes.data % (LINE * raw.itemsize) // raw.itemsize
    return raw[start : start + 4 * width].reshape(4, width)


def words_of(groups: Ids, seed: Word, position: Word, room: Words | None = None, out: Drawn | None = None) -> Drawn:
    """The random words `[G, 4]` of groups of four token ids, 4g to 4g + 3, at one position of a sequence.

    `room` and `out` are memory to use, if there is some.
    """
    words = np.empty((len(groups), 4), np.uint32) if out is None else out
    pairs = words.view(np.uint64)
    for block, drawn in _blocks(groups, seed, position, room):
        pairs[block, 0], pairs[block, 1] = drawn
    return words if sys.byteorder == "little" else words[:, [1, 0, 3, 2]]


def words_at(ids: Ids, seed: Word, position: Word, room: Words | None = None) -> Drawn:
    """The random word of each token id `[n]`, at one position of a sequence for all or for each."""
    words = np.empty(len(ids), np.uint32)
    for block, (first, second) in _blocks(ids >> 2, seed, position, room):
        here = ids[block].astype(np.uint64)
        pair = np.where(here & np.uint64(2), second, first)
        pair >>= (here & np.uint64(1)) << np.uint64(5)
        words[block] = pair  # the lower half of each
    return words


def gumbel(words: Drawn) -> npt.NDArray[np.float32]:
    """The Gumbel noise of random words, with which it grows."""
    uniform = words.astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-32
    return (-np.log(-np.log(uniform))).astype(np.float32)


def noise_at(ids: Ids, seed: Word, position: Word) -> npt.NDArray[np.float32]:
    """The Gumbel noise of each token id `[n]`, at one position of a sequence for all or for each."""
    return gumbel(words_at(ids, seed, position))


def _blocks(groups: Ids, seed: Word, position: Word, room: Words | None) -> Iterator[tuple[slice, tuple[Words, Words]]]:
    """The words of groups, one block after the other: of counters (group, position, 0, 0)."""
    room = memory(len(groups)) if room is None else room
    for start in range(0, len(groups), room.shape[1] or 1):
        block = slice(start, min(start + room.shape[1], len(groups)))
        key, place = (each[block] if isinstance(each, np.ndarray) else each for each in (seed, position))
        yield block, _words(groups[block], round_keys(key), place, room[:, : block.stop - start])


def _words(groups: Ids, keys: list[tuple[Word, Word]], position: Word, room: Words) -> tuple[Words, Words]:
    """The first two rounds by hand, in which half of the words are still the same for all groups; then the others."""
    m0, m1 = (np.uint64(number) for number in MULTIPLIERS)
    (k0, k1), (l0, l1) = keys[:2]
    same = (position ^ k0) * m0
    c0, c1, c2, c3 = room
    c2[...] = groups
    c2 *= m0
    np.right_shift(c2, HALF, out=c1)
    c1 ^= k1
    c1 *= m1
    np.right_shift(c1, HALF, out=c0)
    c0 ^= l0
    c1 <<= HALF
    c2 &= LOW
    c2 ^= (same >> HALF) ^ l1
    c3[...] = same << HALF
    return philox(room, keys[2:])
