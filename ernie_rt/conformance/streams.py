"""Random words that any language can make again."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ernie_rt.sampling.philox import words_of


def words(key: str, count: int) -> npt.NDArray[np.uint32]:
    """The first `count` random words of a stream: Philox, keyed by the first 8 bytes of its name's SHA-256."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return words_of(np.arange(-(-count // 4)), seed, 0).reshape(-1)[:count]
