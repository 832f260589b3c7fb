"""docs/tutorial.md, word by word, in an environment of its own with the wheel of this tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from support.installed import TRITON
from support.shown import blocks, pattern

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
SOURCES = ("ernie_rt", "backends", "plugins", "pyproject.toml", "README.md", "LICENSE")
SCRIPT = "#!{0}\nimport sys\nfrom {1} import {2} as main\nsys.exit(main())\n"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a virtual environment that has this project's wheel, and what it depends on from outside."""
    root = tmp_path_factory.mktemp("environment")
    tree = root / "tree"
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    site = next((root / "venv" / "lib").glob("python*")) / "site-packages"
    # The libraries, and not the project: Python does not follow the .pth files of a folder that it adds by one.
    (site / "outside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name, module, function in (("pip", "pip._internal.cli.main", "main"), ("pytest", "pytest", "console_main")):
        script = root / "venv" / "bin" / name
        script.write_text(SCRIPT.format(python, module, function))
        script.chmod(0o755)
    # Without an index and with the build tools that are installed, so that nothing is fetched.
    settings = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{root / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # One thread, which waits for nobody: conformance/test_threads.py has as many as there are by default.
    found = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ERNIE_RT_PLUGINS")}
    found |= settings | {"VIRTUAL_ENV": str(root / "venv"), "PATH": path, "OMP_NUM_THREADS": "1"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--ignore-installed", "--no-deps", str(tree)]
    done = subprocess.run(install, env=found, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found


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
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
                continue
            ran = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            shown = ran.stdout.decode()
            assert re.fullmatch(pattern(expected), shown), f"{command}\n{shown}"
            assert ran.returncode == ("\nfailed " in expected), shown


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
        "ernie_rt", "ernie_rt_cudagraph", "ernie_rt_eager", "ernie_rt_onnx", "ernie_rt_serve",
        "ernie_rt_template",
    }  # fmt: skip
