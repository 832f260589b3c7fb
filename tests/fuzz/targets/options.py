"""What a caller asks of the sampler, in Python's values."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, Final, get_type_hints

import numpy as np

from ernie_rt.generation.options import GenerateOptions, check_options
from ernie_rt.modeling.config import parse_config
from ernie_rt.sampling.params import RANGES, WHOLE, SamplingParams
from fuzz.mutations import TEXTS, value
from fuzz.target import Attempt, Target
from support.configs import DENSE

CONFIG: Final = parse_config(DENSE, "config.json")
NAMES: Final = tuple(get_type_hints(GenerateOptions))
LISTS: Final = ("logit_bias", "bad_words", "allowed_ids", "stop", "stop_ids")


def start(folder: Path) -> Attempt:
    def attempt(rng: Random) -> None:
        given: dict[str, Any] = {name: option(name, rng) for name in rng.sample(NAMES, rng.randrange(6))}
        if rng.random() < 0.05:
            given[rng.choice(("beam", "", "é", "max_tokens"))] = 1
        checked = check_options(CONFIG.eos_token_id, CONFIG.vocab_size, **given)
        assert checked.max_new_tokens >= 1 and all(0 <= id < 2**31 for id in checked.stop_ids)
        check_sampling(checked.sampling)

    return attempt


def check_sampling(params: SamplingParams) -> None:
    for name, (low, high) in RANGES.items():
        assert low <= getattr(params, name) <= high and type(getattr(params, name)) is float
    for name, most in WHOLE.items():
        assert getattr(params, name) is None or 0 <= getattr(params, name) <= most
    assert all(0 <= id < CONFIG.vocab_size and -100 <= bias <= 100 for id, bias in params.logit_bias.items())


def option(name: str, rng: Random) -> Any:
    """Something right, or at the edge of that, or anything."""
    if rng.random() < 0.25:
        return rng.choice((
            value(rng), 10**5000, [10**5000], {10**5000: 1}, {10**5000: "x"}, {"a": 1}, b"\0", object(), iter([1]),
            np.float32("nan"), np.int64(3), np.zeros(2), Fraction(1, 3), 1j, {1}, -(10**5000),
        ))  # fmt: skip
    if name == "temperature" and rng.random() < 0.2:
        return 0.009
    if name in RANGES:
        low, high = RANGES[name]
        return rng.choice((low, high, np.nextafter(low, -9), np.nextafter(high, 999), (low + high) / 2, 1, 0, True))
    if name in WHOLE:
        return rng.choice((0, 1, WHOLE[name], WHOLE[name] + 1, -1, 5, 5.0, 50.0, None, True))
    ids = [rng.choice((0, 1, 5, CONFIG.vocab_size - 1, CONFIG.vocab_size, 2**31, -1)) for _ in range(rng.randrange(4))]
    match name:
        case "logit_bias":
            return dict.fromkeys(ids, rng.choice((0, 100, -100, 101, "x", None))) or dict.fromkeys(range(5000), 0)
        case "bad_words":
            return rng.choice(([ids], [[]], [ids, [3]], [[1]] * 1025, [[1] * 65], ids))
        case "stop":
            return rng.choice((["a"], "a", [""], ["a"] * 65, [rng.choice(TEXTS)]))
        case "constraint":
            return rng.choice((None, 5, type("Constraint", (), {"start": lambda self: self})()))
        case "max_new_tokens" | "thinking_budget":
            return rng.choice((1, 0, -1, 2**70, 5.0, 5.5, None, np.int32(3), True))
        case "eos_token_id" | "stop_ids" | "allowed_ids":
            return rng.choice((ids, 5, -1, [5.0], [-1], [CONFIG.vocab_size], None, []))
    return rng.choice((True, False, None, 0, "yes"))


TARGET = Target(
    "options",
    ("ernie_rt.generation.options", "ernie_rt.sampling.params", "ernie_rt.text.stops"),
    start,
    share=10_000,
)
