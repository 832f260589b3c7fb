"""Inputs that random ones of tests/fuzz have led to, in their smallest form: each got past the checks once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_rt.conformance.declared import Expectations
from ernie_rt.errors import ConfigError, ErnieRtError, FileFormatError
from ernie_rt.modeling.config import parse_config
from ernie_rt.weights.safetensors import SafetensorsFile
from support.configs import DENSE
from support.vision_language import FLAT

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


def config(fields: dict[str, Any]) -> Reading:
    return lambda folder: parse_config(fields, "config.json")


def json_file(read: Callable[[Path], object], value: object) -> Reading:
    def reading(folder: Path) -> None:
        (folder / "file.json").write_text(json.dumps(value))
        read(folder / "file.json")

    return reading


FOUND: dict[str, tuple[Reading, type[ErnieRtError], str]] = {
    "an empty tensor, longer than any array may be": (
        tensors({"a": {"dtype": "U8", "shape": [0, 1 << 63], "data_offsets": [0, 0]}}),
        FileFormatError,
        "'a' has a shape that no array can have",
    ),
    "a backend's declared feature that is no text": (
        json_file(Expectations.read, {"features": [{}]}),
        FileFormatError,
        "features is no list of features",
    ),
    "a video's token beyond the vocabulary": (
        config(FLAT | {"vocab_size": 150}),
        ConfigError,
        "im_patch_id, image_start_token_id, .*, vocab_size: impossible value",
    ),
    "a kind of rotary scaling, under its older name": (
        config(DENSE | {"rope_scaling": {"type": 3}}),
        ConfigError,
        "rope_scaling.type: not supported",
    ),
    "a tower of another width than is said outside of it": (
        config(FLAT | {"pixel_hidden_size": 64}),
        ConfigError,
        "expected hidden_size of vision_config = 32; found 64",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_got_past_the_checks_once(tmp_path: Path, name: str) -> None:
    reading, error, words = FOUND[name]
    with pytest.raises(error, match=words) as caught:
        reading(tmp_path)
    assert type(caught.value) is error
