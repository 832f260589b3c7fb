"""Philox against the known answers of its authors, and the noise made of it."""

from __future__ import annotations

import numpy as np
import pytest

from ernie_rt.sampling.philox import gumbel, gumbel_below, philox
from support.sampling import noise

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
    c0, c1, c2, c3 = (np.array([word, word], np.uint64) for word in counter)
    assert [word.tolist() for word in philox((c0, c1, c2, c3), key)] == [[word, word] for word in expected]


@pytest.mark.parametrize(("seed", "position"), [(0, 0), (7, 1), (2**64 - 1, 131071), (0x1234567890ABCDEF, 4097)])
def test_noise_of_a_token_is_its_own(seed: int, position: int) -> None:
    """Whatever other tokens are asked for, and however many."""
    ids = np.array([0, 1, 2, 3, 4, 5, 30, 4095, 16383, 16384, 16385, 20001, 103423])
    expected = [noise(int(id), seed, position) for id in ids]
    assert gumbel(ids, seed, position).tolist() == expected
    for count in (1, 3, 6, 16386, 103424):
        every = gumbel_below(count, seed, position)
        assert every.dtype == np.float32 and len(every) == count
        assert [every[id] for id in ids[ids < count]] == expected[: (ids < count).sum()]
    assert gumbel(np.arange(9001), seed, position).tolist() == gumbel_below(9001, seed, position).tolist()


def test_noise_differs_by_seed_position_and_token() -> None:
    drawn = [gumbel_below(1000, seed, position) for seed in (0, 1, 2**32, 2**63) for position in (0, 1, 2)]
    assert len(np.unique(np.concatenate(drawn))) > 11990


def test_noise_is_gumbel() -> None:
    drawn = np.concatenate([gumbel_below(50000, 5, position) for position in range(10)]).astype(np.float64)
    assert abs(drawn.mean() - np.euler_gamma) < 0.01 and abs(drawn.var() - np.pi**2 / 6) < 0.02
    below = (drawn[:, None] < np.array([-1.0, 0.0, 1.0, 3.0])).mean(0)
    np.testing.assert_allclose(below, np.exp(-np.exp(-np.array([-1.0, 0.0, 1.0, 3.0]))), atol=0.003)
