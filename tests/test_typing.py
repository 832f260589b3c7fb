"""What a user's type checker sees in an environment that `make` has set up for this tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
import ernie_rt
import ernie_rt_eager
from ernie_rt.contract import SimpleBackend


def ask(model: ernie_rt.Model, question: str, stream: bool) -> str:
    answer = model.chat([{"role": "user", "content": question}], stream=stream)
    if isinstance(answer, ernie_rt.Stream):
        return "".join(piece.text for piece in answer)
    return answer.text


def complete(model: ernie_rt.Model, stream: bool) -> ernie_rt.Generation | ernie_rt.Stream:
    whole: ernie_rt.Generation = model.generate("x")
    pieces: ernie_rt.Stream = model.generate("x", stream=True)
    ids: list[list[int]] = model.generate_batch(["x", [1, 2]], max_new_tokens=2)
    print(whole.text, pieces.generation.text, ids)
    return model.generate("x", stream=stream, temperature=0.5)


with ernie_rt.load("demo") as model:
    print(ask(model, "hello", True))
"""


@pytest.mark.long
def test_a_file_outside_the_tree(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    # The libraries, and not the project: Python does not follow the .pth files of a folder that it adds by one.
    (site / "outside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "use.py").write_text(USE)
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "use.py"]

    def checked() -> str:
        return subprocess.run(check, cwd=tmp_path, capture_output=True, text=True).stdout

    assert 'Cannot find implementation or library stub for module named "ernie_rt"' in checked()
    subprocess.run([python, ROOT / "tools" / "source_paths.py"], check=True)
    assert checked() == "Success: no issues found in 1 source file\n"
    (tmp_path / "use.py").write_text(USE.replace("stream=stream, temperature=0.5", 'stream=stream, temperature="x"'))
    assert "use.py:" in checked(), "it is read, not skipped"
