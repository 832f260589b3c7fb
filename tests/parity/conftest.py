"""Calibrated checkpoints, once a session, and a table of the worst figures at its end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest

from support.checkpoints import SPECS

if TYPE_CHECKING:
    from support.judge import Oracle

Measure = Callable[[str, float, float], None]
FIGURE = "figure"


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


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The worst of each figure. They come with the reports, whichever process the tests ran in."""
    worst: dict[str, tuple[float, float, str]] = {}
    for report in itertools.chain(*map(terminalreporter.stats.get, ("passed", "failed"), ([], []))):
        for name, told in report.user_properties if report.when == "call" else ():
            if name == FIGURE:
                figure, value, limit = told
                if figure not in worst or not value / limit <= worst[figure][0] / worst[figure][1]:
                    worst[figure] = value, limit, report.nodeid.split("::")[-1]
    if worst:
        terminalreporter.section("worst figures of parity")
        for figure, (value, limit, test) in sorted(worst.items()):
            terminalreporter.write_line(f"{figure:58} {value:9.2e}  limit {limit:8.1e}  {test}")
    return (yield)
