"""A server of the demo model, as a command starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ernie_rt import Model
from ernie_rt_serve.settings import Settings
from support.serving import Served, serving


@pytest.fixture(scope="session")
def server(demo: Model) -> Iterator[Served]:
    """Serves it to everybody on this machine, as `ernie-rt serve demo` does."""
    with serving(demo, Settings("demo", own_hosts=True)) as served:
        yield served
