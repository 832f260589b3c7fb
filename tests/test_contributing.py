"""CONTRIBUTING.md: each of its recipes, word by word, in a copy of this tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import START
from support.shown import blocks, in_terminal, pattern
from support.wheel_environment import wheel_environment

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^## Add an? (.*)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
TREE = ("ernie_rt", "backends", "plugins")


def change(file: Path, lines: list[str]) -> None:
    """Put the lines with a + where the others stand, which have to stand there, and once."""
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text()
    assert text.count(before) == 1, f"{file.name}: {before}"
    file.write_text(text.replace(before, after))


def follow(name: str, folder: Path, environment: dict[str, str]) -> None:
    page = folder / "recipe.md"
    page.write_text(RECIPES[name])
    for language, text in blocks(page):
        path, _, rest = text.partition("\n")
        if language == "diff":
            change(folder / path.removeprefix("# "), rest.splitlines(keepends=True))
        elif language == "python":
            (folder / path.removeprefix("# ")).write_text(rest)
        else:
            assert language == "console"
            for shown in in_terminal(text):
                if shown.command.startswith("cd "):
                    folder /= shown.command.removeprefix("cd ")
                    continue
                ran = subprocess.run(
                    ["bash", "-c", shown.command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True,
                )  # fmt: skip
                expected = pattern(shown.expected, figures="conform" in shown.command)
                assert re.fullmatch(expected, ran.stdout), f"{shown.command}\n{ran.stdout}"
                assert ran.returncode == 0


def test_there_are_four_recipes() -> None:
    assert list(RECIPES) == ["op", "storage", "dialect", "backend"]


def test_lines_to_find_have_to_be_there_once(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("a\nb\na\n")
    change(file, [" b\n", "+c\n"])
    assert file.read_text() == "a\nb\nc\na\n"
    for lines in (["+x\n", " a\n"], ["-d\n"]):
        with pytest.raises(AssertionError):
            change(file, lines)


@pytest.mark.long
@pytest.mark.parametrize("name", ["op", "storage", "dialect"])
def test_a_recipe_for_this_tree(name: str, tmp_path: Path) -> None:
    if name == "op":
        pytest.importorskip("onnxruntime")
    for top in TREE:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, words in (("python", [sys.executable]), ("ernie-rt", START)):
        quoted = " ".join(f"'{word}'" for word in words)
        (programs / program).write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        (programs / program).chmod(0o755)
    roots = os.pathsep.join(str(tmp_path / each) for each in ("", "backends", "plugins"))
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    follow(name, tmp_path, os.environ | {"PYTHONPATH": roots, "PATH": path, "OMP_NUM_THREADS": "1"})


@pytest.mark.long
def test_the_recipe_for_a_backend(tmp_path: Path) -> None:
    follow("backend", tmp_path, wheel_environment(tmp_path))
