"""What tests of several folders need."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.untrained import write_untrained


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random checkpoint with a tokenizer. Tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    write_untrained(folder)
    return folder
