"""What random requests have found, each mended: the input that showed it, and the error that it must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.errors import OptionError
from ernie_rt.generation.options import check_options

HUGE = 10**5000
"""An integer that Python does not print."""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop": HUGE}, "stop is no list of strings; found an integer of 16610 bits"),
        ({"stop": ["a", HUGE]}, "an impossible stop string; .* found an integer of 16610 bits"),
        ({"logit_bias": {HUGE: "x"}}, "a token id in logit_bias is out of range; .* found an integer of 16610 bits"),
        ({"ignore_eos": np.zeros(2)}, "ignore_eos is not possible; expected True or False"),
        ({"max_new_tokens": np.zeros(2)}, "max_new_tokens must be a whole number above 0"),
        ({"thinking_budget": np.zeros(2)}, "thinking_budget must be a whole number above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_any_type_are_judged(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_options([2], 100, **options)
