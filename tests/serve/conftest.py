"""Servers of the demo model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ernie_rt import Model
from ernie_rt_serve.settings import Settings
from support.serving import Served, serving


@pytest.fixture(scope="session")
def server(demo: Model) -> Iterator[Served]:
    """Serves the demo model to everybody."""
    with serving(demo, max_queue=64) as served:
        yield served


@pytest.fixture(scope="session")
def impatient(demo: Model) -> Iterator[Served]:
    """Serves it to clients that are quick."""
    settings = Settings("demo", header_seconds=0.4, body_seconds=0.4, stall_seconds=0.3)
    with serving(demo, settings) as served:
        yield served
