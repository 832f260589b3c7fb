"""What tests of several folders need."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_rt.text import sandbox
from support.untrained import write_untrained


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random checkpoint with a tokenizer. Tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    write_untrained(folder)
    return folder


@pytest.fixture(scope="module")
def rendered_once() -> Iterator[None]:
    """Of each template and its conversations one child process is asked, once: it is most of what loading one costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "_ask", functools.cache(sandbox._ask))
        yield
