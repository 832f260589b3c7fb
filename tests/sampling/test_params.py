"""What sampling parameters take, and what they refuse by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_rt.errors import OptionError
from ernie_rt.sampling.params import GREEDY, SamplingParams

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("temperature", [-0.1, 100.5, NAN, INF, "1", None, True, 1j, 10**400, -(10**5000)], "a number from 0 to 100"),
        ("temperature", [0.009, 1e-30], "0, or 0.01 to 100"),
        ("top_p", [-1, 1.01, NAN], "a number from 0 to 1"),
        ("top_p", [0, 0.0], "above 0, at most 1"),
        ("min_p", [-0.01, 1.5, NAN], "a number from 0 to 1"),
        ("repetition_penalty", [0, -1, 101, NAN], "a number from 0.01 to 100"),
        ("presence_penalty", [-2.5, 3, INF], "a number from -2 to 2"),
        ("frequency_penalty", [-2.5, 3, NAN], "a number from -2 to 2"),
        ("top_k", [-1, 2**31, 1.5, "5", True, None], "a whole number from 0 to 2147483647"),
        ("min_new_tokens", [-1, 0.5, None], "a whole number from 0"),
        ("seed", [-1, 2**64, 10**5000, 1.0, "x", False], "a whole number from 0 to 18446744073709551615"),
        ("logprobs", [-1, 21, 2.0, True], "a whole number from 0 to 20"),
    ],
)
def test_a_number_out_of_range_is_named(name: str, values: list[Any], expected: str) -> None:
    for value in values:
        with pytest.raises(OptionError, match=name) as caught:
            SamplingParams(**{name: value})
        assert expected in str(caught.value.expected) and caught.value.found is not None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logit_bias", [(1, 2.0)], "no mapping"),
        ("logit_bias", dict.fromkeys(range(4097), 0.0), "at most 4096"),
        ("logit_bias", {1: 101}, "logit_bias of 1 is out of range"),
        ("logit_bias", {1: NAN}, "logit_bias of 1 is out of range"),
        ("logit_bias", {"1": 1.0}, "a token id in logit_bias"),
        ("logit_bias", {-1: 1.0}, "a token id in logit_bias"),
        ("bad_words", "word", "no list"),
        ("bad_words", [[]], "sequences of 1 to 64"),
        ("bad_words", [list(range(65))], "sequences of 1 to 64"),
        ("bad_words", [[1]] * 1025, "at most 1024"),
        ("bad_words", [5], "bad_words is no list"),
        ("bad_words", [[1, -5]], "a token id in bad_words"),
        ("allowed_ids", [], "allowed_ids is empty"),
        ("allowed_ids", "12", "no list"),
        ("allowed_ids", [1.0], "a token id in allowed_ids"),
    ],
    ids=repr,
)
def test_ids_that_are_none(name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        SamplingParams(**{name: value})
    assert message in str(caught.value)


def test_what_is_taken_becomes_plain_and_fixed() -> None:
    bias = {np.int64(3): np.float32(0.5)}
    given: Any = {
        "temperature": np.float32(0.5), "top_k": np.int64(4), "logit_bias": bias, "bad_words": [[1, 2], (3,)],
        "allowed_ids": np.array([9, 3, 9]),
    }  # fmt: skip
    params = SamplingParams(**given)
    bias[np.int64(4)] = np.float32(1)
    assert (type(params.temperature), type(params.top_k)) == (float, int)
    assert (dict(params.logit_bias), params.bad_words, params.allowed_ids) == ({3: 0.5}, ((1, 2), (3,)), (3, 9))
    with pytest.raises(OptionError, match="allowed_ids holds a token id outside the vocabulary; expected 0 to 8"):
        params.check_vocabulary(9)
    params.check_vocabulary(10)
    assert len(SamplingParams(bad_words=[[1] * 64] * 1024).bad_words) == 1024  # type: ignore[arg-type]


def test_what_a_device_can_do_by_itself() -> None:
    assert GREEDY.plain and SamplingParams(top_k=5, top_p=0.5, seed=3).plain
    for options in ({}, {"temperature": 0.5}, {"temperature": 1.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "seed": 3}):
        params = SamplingParams(**options)  # type: ignore[arg-type]
        assert params.drawable and params.plain is (params.temperature == 0)
    for asked in (
        {"repetition_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1}, {"logit_bias": {1: 0.0}},
        {"bad_words": [[1]]}, {"allowed_ids": [1]}, {"min_new_tokens": 1}, {"logprobs": 0},
    ):  # fmt: skip
        params = SamplingParams(**asked)  # type: ignore[arg-type]
        assert not params.drawable and not params.plain, asked
