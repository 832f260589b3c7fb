"""Calibrated checkpoints, once a session, and a table of the worst figures at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest

from support.checkpoints import SPECS

if TYPE_CHECKING:
    from support.judge import Oracle

Measure = Callable[[str, float, float], None]
FIGURES = pytest.StashKey[dict[str, tuple[float, float, str]]]()


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The calibrated checkpoint of a name, with what transformers makes of it."""
    from support.judge import calibrate

    folder = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: calibrate(SPECS[name], folder / name))


@pytest.fixture
def measured(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Measure:
    """`measured(figure, value, limit)` records a figure and asserts that it is within its limit."""
    figures = request.config.stash.setdefault(FIGURES, {})

    def measure(figure: str, value: float, limit: float) -> None:
        record_property(figure, f"{value:.3g} of {limit:.3g}")
        if figure not in figures or not value / limit <= figures[figure][0] / figures[figure][1]:
            figures[figure] = value, limit, request.node.name
        assert value <= limit, f"{figure}: {value:.3g} > {limit:.3g}"

    return measure


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    figures = config.stash.get(FIGURES, {})
    if figures:
        terminalreporter.section("worst figures of parity")
        for figure, (value, limit, test) in sorted(figures.items()):
            terminalreporter.write_line(f"{figure:58} {value:9.2e}  limit {limit:8.1e}  {test}")
    return (yield)
