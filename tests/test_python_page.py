"""What pages show of Python is so: the examples of docs/python.md, and the one of docs/structured-output.md."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "python.md").read_text("utf-8")


def test_the_examples_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for source, shown in re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL):
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(source, "docs/python.md", "exec"), names)
        assert printed.getvalue() == shown


def test_an_answer_by_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "structured-output.md").read_text("utf-8")
    source, *_ = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(source, "docs/structured-output.md", "exec"), {})
    assert capsys.readouterr().out.strip() == source.rpartition("# ")[2].strip()
