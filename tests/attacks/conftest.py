"""A server of the demo model, as a command starts it, and an exported model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_rt import Model
from ernie_rt.export import ExportOptions, export
from ernie_rt.weights.quantize import Quantization
from ernie_rt_serve.settings import Settings
from support.drawn import MOE, write_drawn
from support.serving import Served, serving


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported model. Tests copy it before they change anything."""
    folder = write_drawn(tmp_path_factory.mktemp("graphs") / "checkpoint", MOE)
    export(folder, folder.parent / "out", options=ExportOptions(Quantization(4)))
    return folder.parent / "out"


@pytest.fixture(scope="session")
def server(demo: Model) -> Iterator[Served]:
    """Serves it to everybody on this machine, as `ernie-rt serve demo` does."""
    with serving(demo, Settings("demo", own_hosts=True)) as served:
        yield served
