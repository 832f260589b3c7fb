"""The demo model, and servers of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ernie_rt
from ernie_rt import Model
from ernie_rt_serve.access import Keys
from ernie_rt_serve.settings import Settings
from support.serving import Served, serving

KEY = "sk-first"


@pytest.fixture(scope="session")
def demo() -> Iterator[Model]:
    with ernie_rt.load("demo", backend="onnx", max_sequences=4, max_context=512, threads=1) as model:
        yield model


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


@pytest.fixture(scope="session")
def locked(demo: Model) -> Iterator[Served]:
    """Serves it to who has one of two keys."""
    with serving(demo, Settings("demo", keys=Keys.of([KEY, "sk-second"]))) as served:
        yield served
