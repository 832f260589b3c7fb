from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ernie_rt
from ernie_rt.location import locate
from ernie_rt.weights.hub import DEMO
from support.commands import command

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


def linked(source: Path, folder: Path) -> Path:
    """As people keep a second copy of what takes a disk's room."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def moved_blobs(source: Path, home: Path) -> Path:
    """A repository in the hub's cache whose blobs lie on another disk; its snapshot."""
    snapshot = home / "models--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    shutil.copytree(source, home / "elsewhere")
    (home / "models--a--b" / "blobs").symlink_to(home / "elsewhere")
    for path in source.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    return snapshot


def test_folders_of_links_run_and_are_copied_before_they_are_written_elsewhere(demo: Path, tmp_path: Path) -> None:
    question = [{"role": "user", "content": "How many grams are in 5 kilograms?"}]
    links, moved = linked(demo, tmp_path / "links"), moved_blobs(demo, tmp_path / "hub")
    for folder in (links, moved):
        with ernie_rt.load(folder, backend="reference") as model:
            assert model.chat(question).text == "5 kilograms = 5000 grams"
        ran = command("quantize", folder, tmp_path / "out", "--weights", "int8")
        assert ran.code == 2 and "a link that leaves its folder" in ran.err and "`cp -rL FOLDER COPY`" in ran.err
        assert not list(tmp_path.glob("out*"))
    # What is kept in the user's own cache goes to nobody.
    ran = command("run", moved, question[0]["content"], "--backend", "reference", "--weights", "int8")
    assert ran.code == 0 and ran.out == "5 kilograms = 5000 grams\n"
    ran = command("export", "onnx", links, tmp_path / "out", "--threads", 1)
    assert ran.code == 2 and "a link that leaves its folder" in ran.err and not list(tmp_path.glob("out*"))
    assert command("quantize", demo, tmp_path / "q", "--weights", "int8").code == 0
    assert command("run", linked(tmp_path / "q", tmp_path / "ql"), "hello", "--backend", "reference").code == 0
