"""tools/dist.py: what it takes for a wheel and an sdist of the commit, and, long, that it makes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import dist
import pytest

ROOT = Path(__file__).parents[2]
METADATA = b"Metadata-Version: 2.4\nName: ernie-rt\nVersion: 0.1.0\n"
TREE = {
    "ernie_rt/__init__.py": b"core",
    "backends/ernie_rt_onnx/__init__.py": b"onnx",
    "backends/ernie_rt_onnx/ops/op.cpp": b"op",
    "plugins/ernie_rt_serve/page/assets/page.css": b"page",
    "README.md": b"read",
}
WHEEL = {
    "ernie_rt/__init__.py": b"core",
    "ernie_rt_onnx/__init__.py": b"onnx",
    "ernie_rt_serve/page/assets/page.css": b"page",
    "ernie_rt-0.1.0.dist-info/METADATA": METADATA,
    "ernie_rt-0.1.0.dist-info/RECORD": b"",
}
SDIST = TREE | {"PKG-INFO": METADATA, "setup.cfg": b"", "ernie_rt.egg-info/SOURCES.txt": b""}
SAY = """#!{python}
import sys
told = {told!r}
out, err, code = next((said for given, said in told if given == sys.argv[1:]), ("", "pip install 'ernie-rt[onnx]'", 2))
sys.stdout.write(out), sys.stderr.write(err)
sys.exit(code)
"""


def test_archives_of_the_commit_have_no_troubles() -> None:
    assert not list(dist.troubles(TREE, WHEEL, SDIST))


@pytest.mark.parametrize(
    ("wheel", "sdist", "trouble"),
    [
        ({"tests/test_a.py": b""}, {}, "the wheel has tests/test_a.py, which is not of the commit"),
        ({"ernie_rt/__init__.py": b"x"}, {}, "the wheel has ernie_rt/__init__.py, which is not of the commit"),
        ({"ernie_rt/picture.png": b""}, {}, "the wheel has ernie_rt/picture.png, which is not of the commit"),
        ({"ernie_rt_onnx/ops/op.cpp": b"op"}, {}, "the wheel has ernie_rt_onnx/ops/op.cpp, which is not of the commit"),
        ({"README.md": b"read"}, {}, "the wheel has README.md, which is not of the commit"),
        ({"ernie_rt_serve/page/assets/page.css": None}, {}, "the wheel lacks ernie_rt_serve/page/assets/page.css"),
        ({}, {"tests/test_a.py": b""}, "the sdist has tests/test_a.py, which is not of the commit"),
        ({}, {"README.md": b"x"}, "the sdist has README.md, which is not of the commit"),
        ({}, {"backends/ernie_rt_onnx/ops/op.cpp": None}, "the sdist lacks backends/ernie_rt_onnx/ops/op.cpp"),
        ({}, {"PKG-INFO": METADATA + b"License-Expression: mine\n"}, "the metadata of the sdist: "),
        ({"ernie_rt-0.1.0.dist-info/METADATA": b"Name: a\n"}, {}, "the metadata of the wheel: "),
    ],
)
def test_what_is_foreign_changed_or_missing_is_named(
    wheel: dict[str, bytes | None], sdist: dict[str, bytes | None], trouble: str
) -> None:
    there = [
        {name: data for name, data in (files | changes).items() if data is not None}
        for files, changes in ((WHEEL, wheel), (SDIST, sdist))
    ]
    found = list(dist.troubles(TREE, *there))
    assert found and all(each.startswith(trouble) for each in found)


@pytest.mark.parametrize(
    ("wrong", "troubles"),
    [
        ({}, 0),
        ({"--version": ("ernie-rt 0.0.9\n", "", 0)}, 1),
        ({"backends": ("NAME STATUS\neager  usable  cpu\nreference  broken  cpu\n", "", 0)}, 1),
        ({"run": (dist.ANSWER, "decode 60 tokens/s · onnx · cpu", 0)}, 1),
        ({"run": ("5000\n", "decode 60 tokens/s · reference · cpu", 0)}, 1),
        ({"serve": ("", "ModuleNotFoundError: No module named 'uvicorn'", 1)}, 1),
        ({"serve": ("", "Traceback (most recent call last)\npip install 'ernie-rt[serve]'", 1)}, 1),
        ({"serve": ("", "pip install 'ernie-rt[serve]'", 0)}, 1),
    ],
)
def test_an_environment_answers_and_refuses_politely(
    wrong: dict[str, tuple[str, str, int]], troubles: int, tmp_path: Path
) -> None:
    """A command that says what it is told stands in for ernie-rt."""
    environment = dist.Environment("", "reference", {dist.ON_ONNX: "onnx", dist.SERVE: "serve"})
    said = {
        "--version": ("ernie-rt 0.1.0\n", "", 0),
        "backends": ("NAME STATUS\nonnx  lacking  cpu\nreference  usable  cpu\n", "", 0),
        "run": (dist.ANSWER, "decode 60 tokens/s · reference · cpu", 0),
        "serve": ("", "pip install 'ernie-rt[serve]'", 1),
    } | wrong
    given = {"run": ["run", "demo", dist.QUESTION], "serve": list(dist.SERVE)}
    command = tmp_path / "ernie-rt"
    command.write_text(
        SAY.format(python=sys.executable, told=[(given.get(name, [name]), each) for name, each in said.items()])
    )
    command.chmod(0o755)
    assert len(list(dist.tried(environment, command, "0.1.0", tmp_path))) == troubles


@pytest.mark.long
@pytest.mark.skipif(find_spec("wheel") is None, reason="no wheel")
@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no checkout of git's")
def test_the_same_commit_gives_the_same_bytes(tmp_path: Path) -> None:
    """Made by build tools that are installed: nothing is fetched, and no environment is made."""
    offline = os.environ | {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    for name in ("first", "second"):
        command = [sys.executable, ROOT / "tools" / "dist.py", "--out", tmp_path / name, "--try"]
        told = subprocess.run(command, env=offline, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert first == second and {Path(name).suffix for name in first} == {".whl", ".gz"}
    assert "  backends/ernie_rt_onnx/ops/op.h\n" in told.stdout and "  ernie_rt/demo/" in told.stdout
