from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ernie_rt
from ernie_rt.location import locate
from ernie_rt.weights.hub import DEMO

JUNK = (
    '"of no use": [NaN, -Infinity, 1e999, %s, "\\ud800", {"a": 1, "a": 2, "\\udfff": 3}], '
    '"of no use": 1, "model_max_length": 1000000000000000019884624838656'
) % ("9" * 5000)
"""What Python's json, nlohmann's, serde or Go's writes, and nobody reads."""


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = shutil.copytree(DEMO, tmp_path / "model")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def add_junk(path: Path) -> None:
    """Fields that nobody reads, and a byte order mark."""
    text = path.read_text(encoding="utf-8") if path.exists() else "{}"
    assert text.startswith("{")
    rest = text[1:] if json.loads(text) == {} else f", {text[1:]}"
    path.write_text(f"\ufeff{{{JUNK}{rest}", encoding="utf-8")


def test_what_nobody_reads_in_the_files_of_a_folder_may_be_anything(demo: Path) -> None:
    question = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]
    with ernie_rt.load(demo, backend="reference") as model:
        expected = model.chat(question, max_new_tokens=8).ids
    for name in ("config", "generation_config", "tokenizer_config", "special_tokens_map", "chat_template"):
        add_junk(demo / f"{name}.json")
    located = locate(demo)
    assert set(located.defaults.ignored) == {"of no use", "model_max_length"}
    with ernie_rt.load(located, backend="reference") as model:
        assert model.chat(question, max_new_tokens=8).ids == expected
