"""docs/tutorial.md, word by word, in an environment of its own with the wheel of this tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.installed import TRITON
from support.shown import blocks, in_terminal, pattern
from support.wheel_environment import wheel_environment

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return wheel_environment(tmp_path_factory.mktemp("environment"))


def test_counts_are_exact_and_figures_are_not() -> None:
    shown = "L1     85      14      0        0        0        L1/…             0.429\n"
    other = shown.replace("0.429", "0.431").replace("…", "rope/heads-of-16")
    assert re.fullmatch(pattern(shown), other)
    assert not re.fullmatch(pattern(shown.replace("85", "78").replace("14", "12")), other)


@pytest.mark.skipif(not TRITON, reason="the page is of a machine with Triton")
def test_what_is_shown_is_what_happens(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path
    for language, text in blocks(TUTORIAL):
        if language == "python":
            path, _, source = text.partition("\n")
            (folder / path.removeprefix("# ")).write_text(source)
            continue
        assert language == "console"
        for step in in_terminal(text):
            if step.command.startswith("cd "):
                folder /= step.command.removeprefix("cd ")
                continue
            ran = subprocess.run(
                ["bash", "-c", step.command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            shown = ran.stdout.decode()
            assert re.fullmatch(pattern(step.expected), shown), f"{step.command}\n{shown}"
            assert ran.returncode == ("\nfailed " in step.expected), shown


def test_the_environment_has_the_wheel_and_not_this_tree(environment: dict[str, str], tmp_path: Path) -> None:
    files = "ernie_rt.__file__, ernie_rt_template.__file__"
    program = f"import ernie_rt, ernie_rt_template, sys; print({files}, *sys.path, sep='\\n')"
    told = subprocess.run(
        ["python", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # What was installed beside this interpreter is at hand, which may itself lie in the tree.
    assert any(path.startswith(sys.prefix) for path in told)
    assert not any(Path(path).is_relative_to(ROOT) for path in told if path and not path.startswith(sys.prefix))
    site = next(Path(environment["VIRTUAL_ENV"]).glob("lib/python*/site-packages"))
    packages = {path.name for path in site.iterdir() if path.is_dir() and path.name.isidentifier()}
    assert packages - {"__pycache__"} == {
        "ernie_rt", "ernie_rt_bench", "ernie_rt_cudagraph", "ernie_rt_eager", "ernie_rt_lm_eval", "ernie_rt_onnx",
        "ernie_rt_serve", "ernie_rt_template",
    }  # fmt: skip
