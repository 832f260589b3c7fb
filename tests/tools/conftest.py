"""What tests of several tools need."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.tokenizer import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo's tokenizer, which takes seconds to train. Whoever writes copies it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder
