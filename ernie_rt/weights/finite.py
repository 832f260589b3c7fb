"""Are the numbers of an array numbers?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

EXPONENTS: Final[Mapping[str, int]] = {
    "float64": 0x7FF << 52,
    "float32": 0xFF << 23,
    "bfloat16": 0xFF << 7,
    "float16": 0x1F << 10,
}
"""The bits of a float that are all set in NaN and the infinities alone."""
AT_ONCE: Final = 1 << 20


def all_finite(array: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether no number is NaN or infinite; of integers, none ever is. Several times as fast as to hash them."""
    exponent = EXPONENTS.get(array.dtype.name)
    if exponent is None:
        return True
    bits = np.ascontiguousarray(array).reshape(-1).view(f"i{array.itemsize}")
    mask = bits.dtype.type(exponent)
    pieces = (bits[start : start + AT_ONCE] for start in range(0, bits.size, AT_ONCE))
    return all((piece & mask).max() < mask for piece in pieces)
