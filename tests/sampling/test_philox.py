"""Philox against the known answers of its authors, and the noise made of it."""

from __future__ import annotations

import numpy as np
import pytest

from ernie_rt.sampling.candidates import LEAST_NOISE, MOST_NOISE
from ernie_rt.sampling.philox import HALF, LOW, gumbel, memory, noise_at, philox, round_keys, words_at, words_of
from support.sampling import noise, philox_word

KNOWN = [  # Random123, kat_vectors: philox4x32 10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    seed = np.uint64(key[0] | key[1] << 32)
    for seeds in (seed, np.array([seed] * 3)):
        words = np.array([counter] * 3, np.uint64).T.copy()
        words[1::2] <<= HALF
        first, second = philox(words, round_keys(seeds))
        drawn = [first & LOW, first >> HALF, second & LOW, second >> HALF]
        assert [word.tolist() for word in drawn] == [[word] * 3 for word in expected]


@pytest.mark.parametrize(("seed", "position"), [(0, 0), (7, 1), (2**64 - 1, 131071), (0x1234567890ABCDEF, 4097)])
def test_noise_of_a_token_is_its_own(seed: int, position: int) -> None:
    """Whatever other tokens are asked for, and however many."""
    ids = np.array([0, 1, 2, 3, 4, 5, 30, 4095, 16383, 16384, 16385, 20001, 103423, 131071, 131072, 140007])
    expected = [noise(int(id), seed, position) for id in ids]
    assert noise_at(ids, seed, position).tolist() == expected
    for count in (1, 3, 6, 16386, 140008):
        every = noise_at(np.arange(count), seed, position)
        assert every.dtype == np.float32 and len(every) == count
        assert [every[id] for id in ids[ids < count]] == expected[: (ids < count).sum()]
    keys = np.array([seed, 5, 2**63], np.uint64), np.array([position, 2, 0], np.uint64)
    assert noise_at(np.array([4095, 4095, 9]), *keys).tolist() == [expected[7], noise(4095, 5, 2), noise(9, 2**63, 0)]


def test_words_come_by_groups_as_they_do_one_by_one() -> None:
    groups = np.array([0, 1, 7, 8, 9, 25855, 4])
    ids = (4 * groups[:, None] + np.arange(4)).reshape(-1)
    seed, position = np.uint64(2**64 - 3), np.uint64(77)
    expected = words_at(ids, seed, position).reshape(-1, 4)
    assert [philox_word(int(id), 2**64 - 3, 77) for id in ids] == expected.reshape(-1).tolist()
    for room in (None, np.empty((4, 3), np.uint64), memory(50)):
        np.testing.assert_array_equal(words_of(groups, seed, position, room), expected)
        np.testing.assert_array_equal(words_at(ids, seed, position, room).reshape(-1, 4), expected)
        seeds, positions = (
            np.arange(28, dtype=np.uint64) << np.uint64(30),
            np.arange(28, dtype=np.uint64) % np.uint64(5),
        )
        alone = [philox_word(*map(int, each)) for each in zip(ids, seeds, positions, strict=True)]
        assert words_at(ids, seeds, positions, room).tolist() == alone


def test_noise_grows_with_the_word() -> None:
    edge = np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    drawn = gumbel(edge)
    assert (np.diff(drawn) > 0).all() and drawn[0] > LEAST_NOISE and drawn[-1] < MOST_NOISE


def test_noise_differs_by_seed_position_and_token() -> None:
    ids = np.arange(1000)
    drawn = [noise_at(ids, seed, position) for seed in (0, 1, 2**32, 2**63) for position in (0, 1, 2)]
    assert len(np.unique(np.concatenate(drawn))) > 11990


def test_noise_is_gumbel() -> None:
    drawn = np.concatenate([noise_at(np.arange(50000), 5, position) for position in range(10)]).astype(np.float64)
    assert abs(drawn.mean() - np.euler_gamma) < 0.01 and abs(drawn.var() - np.pi**2 / 6) < 0.02
    below = (drawn[:, None] < np.array([-1.0, 0.0, 1.0, 3.0])).mean(0)
    np.testing.assert_allclose(below, np.exp(-np.exp(-np.array([-1.0, 0.0, 1.0, 3.0]))), atol=0.003)
