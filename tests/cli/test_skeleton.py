"""`ernie-rt backends new`: names that cannot be, nothing half-written, and a distribution that is complete."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

import ernie_rt_template
from ernie_rt.cli.skeleton import WORD, render
from ernie_rt.errors import OptionError, WriteError
from ernie_rt.writing import write_folder
from support.commands import command

SKELETON = Path(ernie_rt_template.__file__).parent / "skeleton"


@pytest.mark.parametrize(
    ("name", "module", "distribution"),
    [
        ("quick", "ernie_rt_quick", "ernie-rt-quick"),
        ("my-chip", "ernie_rt_my_chip", "ernie-rt-my-chip"),
        ("my_chip2", "ernie_rt_my_chip2", "ernie-rt-my-chip2"),
        ("class", "ernie_rt_class", "ernie-rt-class"),
        ("json", "ernie_rt_json", "ernie-rt-json"),
        ("x", "ernie_rt_x", "ernie-rt-x"),
    ],
)
def test_the_name_is_everywhere(name: str, module: str, distribution: str) -> None:
    rendered, contents = render(name)
    texts = {path: data.decode() for path, data in contents.items()}
    assert rendered == distribution and len(texts) == 11
    assert not any(WORD in path + text for path, text in texts.items())
    project = tomllib.loads(texts["pyproject.toml"])
    assert project["project"]["name"] == distribution
    assert project["project"]["entry-points"]["ernie_rt"] == {name: module}
    assert project["tool"]["setuptools"]["packages"] == [module]
    assert f'name="{name}"' in texts[f"{module}/__init__.py"]
    assert f'target="{module}.backend:Backend"' in texts[f"{module}/__init__.py"]
    assert f'Suite("{name}")' in texts["tests/test_conformance.py"]
    for path, text in texts.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    json.loads(texts[f"{module}/conformance.json"])


def test_the_skeleton_is_rendered_whole() -> None:
    there = {p.relative_to(SKELETON).as_posix() for p in SKELETON.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {path.replace("ernie_rt_other", f"ernie_rt_{WORD}") for path in render("other")[1]} == there


@pytest.mark.parametrize(
    "name",
    ["", "Chip", "2chip", "a" * 33, "auto", "a b", "a.b", "../x", "chip-", "chip_", "a--b", "a-_b", "-a", "é", "a\n"],
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(OptionError, match="not a name for a backend"):
        render(name)


@pytest.mark.parametrize("name", ["eager", "reference", "onnx", "cudagraph", "template"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(OptionError, match=f"the name '{name}' is taken"):
        render(name)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("backends", "new", "quick")
    assert ran.code == 0 and "pip install -e '.[test]'; ernie-rt conform quick" in ran.err
    assert {Path(line) for line in ran.out.splitlines()} == {
        path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()
    }
    before = (tmp_path / "ernie-rt-quick" / "README.md").read_bytes()
    again = command("backends", "new", "quick")
    assert (again.code, again.out) == (1, "") and "ernie-rt-quick: cannot be written; found File exists" in again.err
    assert (tmp_path / "ernie-rt-quick" / "README.md").read_bytes() == before
    (tmp_path / "ernie-rt-empty").mkdir()
    assert command("backends", "new", "empty").code == 1
    assert command("backends", "new", "Not It").code == 2
    assert command("backends", "nonsense").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ernie-rt-empty", "ernie-rt-quick"]


def test_nothing_half_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WriteError, match="cannot be written"):
        write_folder(tmp_path / "new", {"a": b"1", "a/b": b"2"})  # a file cannot be a folder too
    assert list(tmp_path.iterdir()) == []

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "new", {"a": b"1"})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WriteError, match="No such file or directory"):
        write_folder(tmp_path / "absent" / "new", {"a": b"1"})
