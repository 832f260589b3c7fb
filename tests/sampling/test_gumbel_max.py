"""A bound on noise never rules out what could win, and rules out nearly all else."""

from __future__ import annotations

import numpy as np
import pytest

from ernie_rt.sampling.gumbel_max import word_below
from ernie_rt.sampling.philox import gumbel


@pytest.mark.parametrize("size", [0.0, 10.0, 1e4, 1e6, 1e7, 1e8, 3e38])
def test_smaller_words_stay_below_a_bound(size: float) -> None:
    random = np.random.default_rng(0)
    for gap in (-2.0, 0.0, 0.3, 1.0, 3.0, 9.0, 16.0, 21.0, 30.0):
        for score in np.float32(size) + random.standard_normal(20).astype(np.float32):
            bound = np.float32(score + gap)
            word = word_below(bound, score)
            if word < 0:
                assert size > 1e3 or gap <= 0.1
                continue
            words = np.array([word, word - 1 if word else 0, word // 2, 0], np.uint32)
            assert (score + gumbel(words) < bound).all() and (score - 1 + gumbel(words) < bound).all()
            if size < 1e3 and 3 <= gap < 21:
                above = 2**32 - 1 - word
                assert score + gumbel(np.array([word + above // 10], np.uint32))[0] >= bound, "far too small a word"
