"""Calibrated checkpoints, once a session, and figures, of which the end shows the worst."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

from support.checkpoints import SPECS
from support.figures import FIGURE

if TYPE_CHECKING:
    from support.judge import Oracle

Measure = Callable[[str, float, float], None]


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The calibrated checkpoint of a name, with what transformers makes of it."""
    from support.judge import calibrate

    folder = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: calibrate(SPECS[name], folder / name))


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measure:
    """`measured(figure, value, limit)` records a figure and asserts that it is within its limit."""

    def measure(figure: str, value: float, limit: float) -> None:
        record_property(FIGURE, (figure, float(value), limit))
        assert value <= limit, f"{figure}: {value:.3g} > {limit:.3g}"

    return measure
