"""Inputs that random ones of tests/fuzz have led to, in their smallest form: each got past the checks once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.errors import ErnieRtError, FileFormatError
from ernie_rt.weights.safetensors import SafetensorsFile

Reading = Callable[[Path], object]
"""Writes an input into a folder, and reads it."""


def tensors(header: dict[str, Any], payload: bytes = b"") -> Reading:
    def reading(folder: Path) -> None:
        path, text = folder / "model.safetensors", json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
        file = SafetensorsFile(path)
        for name in file.tensors:
            file.array(name)

    return reading


FOUND: dict[str, tuple[Reading, type[ErnieRtError], str]] = {
    "an empty tensor, longer than any array may be": (
        tensors({"a": {"dtype": "U8", "shape": [0, 1 << 63], "data_offsets": [0, 0]}}),
        FileFormatError,
        "'a' has a shape that no array can have",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_got_past_the_checks_once(tmp_path: Path, name: str) -> None:
    reading, error, words = FOUND[name]
    with pytest.raises(error, match=words) as caught:
        reading(tmp_path)
    assert type(caught.value) is error
