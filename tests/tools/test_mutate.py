"""The tool that makes mutants: which it makes, which tests it takes for the nearest, and what becomes of them."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import tempfile
from pathlib import Path

import mutate
import pytest

from mutation.apart import ALONE
from mutation.nearest import Nearness
from mutation.operators import mutants, signatures

SOURCE = b'''\
"""A module of 3 lines or more."""
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from x import y
__all__ = ["f"]
LIMIT: int = 5


def put(x: int, y: int, z: int = 1, *, low: bool = False) -> int:
    """At most 5."""
    assert x < 3
    if x <= LIMIT and not y:
        raise ValueError(f"at most {LIMIT + 1}", 3)
    for each in range(9):
        if each is None or each in (x, y):
            continue
        x += y * 2
        print(each + 1)
    self.place[x:y + 1] = min(x, y)
    return put(x, y, low=True)
'''
MADE = {
    7: {"LIMIT: int = 6", "LIMIT: int = 4"},
    10: {"z: int = 2", "low: bool = True"},
    13: {"if x < LIMIT", "LIMIT or not", "and  y", "if False"},
    15: {"range(10)", "range(8)"},
    16: {"each is not None", "None and each", "not in (x", "if False"},
    17: {"break"},
    18: {"x -= y", "pass", "y // 2", "y * 3", "y * 1"},
    20: {"pass", "max(x, y)", "y - 1", "y + 0", "y + 2", "(x + 1)"},
    21: {"put(y, x", "put(x, y)", "low=False"},
}


def test_every_mistake_of_a_line() -> None:
    found = mutants("module.py", SOURCE, signatures([ast.parse(SOURCE)]))
    lines = [(mutant.line, mutant.of(SOURCE).decode().splitlines()[mutant.line - 1]) for mutant in found]
    assert {line for line, _ in lines} == set(MADE)
    for number, pieces in MADE.items():
        texts = [text for line, text in lines if line == number]
        assert len(texts) == len(set(texts)) == len(pieces), texts
        assert all(any(piece in text for text in texts) for piece in pieces), texts
    assert all(mutant.differs(SOURCE) for mutant in found)


def test_a_sample_is_told_by_its_seed_and_goes_over_packages_and_operators() -> None:
    other = SOURCE.replace(b"LIMIT", b"MOST")
    sources = {"a.py": SOURCE, "b.py": other}
    found = {name[0]: mutants(name, source, {}) for name, source in sources.items()}
    chosen = mutate.sample(found, 12, 3, sources)
    assert chosen == mutate.sample(found, 12, 3, sources) != mutate.sample(found, 12, 4, sources)
    assert [package for package, _ in chosen] == ["a", "b"] * 6
    assert len({mutant.operator for _, mutant in chosen if mutant.path == "a.py"}) == 6


def test_the_nearest_tests_of_a_module() -> None:
    code = {name: "plugins" if name.startswith("plugins/") else "." for name in mutate.tree(mutate.ROOT)}
    code = {name: base for name, base in code.items() if name.startswith(("ernie_rt/", "plugins/ernie_rt_serve/"))}
    code = {name: base for name, base in code.items() if name.endswith(".py")}
    nearness = Nearness(mutate.ROOT, code, mutate.ROOT / "tests")
    for path, nearest in {
        "ernie_rt/files.py": "tests/test_files.py",
        "ernie_rt/weights/hub.py": "tests/weights/test_hub.py",
        "plugins/ernie_rt_serve/body.py": "tests/serve/test_body.py",
    }.items():
        near, others = nearness.of(path, {})
        assert near[0] == nearest and others and not set(near) & set(others)


TREE = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "safe.py": """
import os, signal

def end(pid: int) -> None:
    if pid < 1:
        return
    os.kill(pid, signal.SIGKILL)
""",
    "wait.py": """
def wait(done: bool) -> bool:
    while not done:
        pass
    return True
""",
    "tests/test_wait.py": """
from wait import wait

def test_wait():
    assert wait(True)
""",
    "tests/test_safe.py": f"""
import os, resource
from safe import end

def test_end():
    end(-1)
    assert os.getppid() == 1

def test_in_the_tree():
    open("left", "x").close()

def test_limits_of_its_own():
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, {resource.getrlimit(resource.RLIMIT_DATA)[1]}))

def test_folders_that_others_may_enter(tmp_path):
    while str(tmp_path) != {tempfile.gettempdir()!r}:
        tmp_path.chmod(0o755)
        tmp_path = tmp_path.parent

def test_wrong():
    assert False
""",
}
"""One mutant of `wait` never ends, one of `end` would kill every process of this user, and one test fails anyway."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    able = subprocess.run([*ALONE, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True).returncode == 0
    if not able:
        pytest.skip("the system grants no namespaces")
    root = tmp_path / "tree"
    for name, text in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


def test_a_run(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mutation.running.Apart.__init__.__defaults__", (["pytest", "hypothesis"],))
    report = tmp_path / "report.json"
    before = (tree / "wait.py").stat().st_mtime_ns
    arguments = ["--patience", "3", "--json", str(report)]
    assert mutate.main(["wait.py", "safe.py", *arguments], tree) == 1
    told = {(each["mutant"]["path"], each["mutant"]["text"]): each for each in json.loads(report.read_text())}
    assert {key: each["outcome"] for key, each in told.items()} == {
        ("wait.py", ""): "hang", ("wait.py", "False"): "failed", ("safe.py", "False"): "failed",
        **dict.fromkeys([("safe.py", text) for text in ("<=", "2", "0", "pass")], "survived"),
    }  # fmt: skip
    assert told["wait.py", ""]["by"] == "tests/test_wait.py::test_wait"
    assert told["safe.py", "False"]["by"] == "tests/test_safe.py::test_end"
    shown = capsys.readouterr().out
    assert (
        "left out: tests/test_safe.py::test_wrong" in shown and "-    os.kill(pid, signal.SIGKILL)\n+    pass" in shown
    )

    (tree / "tests" / "test_safe.py").write_text("from safe import end\n\ndef test_one():\n    end(0)\n    end(1)\n")
    (tree / "safe.py").write_text("# moved\n" + (tree / "safe.py").read_text())
    assert mutate.main(["--again", str(report), *arguments], tree) == 1
    again = {each["mutant"]["text"]: each for each in json.loads(report.read_text())}
    assert {text: each["outcome"] for text, each in again.items()} == {
        "<=": "survived", "2": "survived", "0": "crash", "pass": "survived"
    }  # fmt: skip
    assert again["<="]["mutant"]["line"] == told["safe.py", "<="]["mutant"]["line"] + 1
    assert {path.name for path in tree.iterdir()} == {".git", "tests", "pyproject.toml", "safe.py", "wait.py"}
    assert (tree / "wait.py").stat().st_mtime_ns == before
