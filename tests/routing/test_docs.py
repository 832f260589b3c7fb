"""docs/routing.md shows what its commands print, and its picture is what the command below it makes."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from support.commands import command
from support.routings import made

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "routing.md").read_text("utf-8")
COMMANDS = re.findall(r"^```console\n\$ ernie-rt (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("line", "shown"), COMMANDS)
def test_commands(line: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = re.search(r"\(`texts.txt` has three lines: `(.*?)`, `(.*?)` and `(.*?)`\.?\)", PAGE)
    assert texts is not None
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts.groups()), "utf-8")
    assert command(*shlex.split(line)).out == shown


def test_picture(tmp_path: Path) -> None:
    found = re.search(r"^\*Made by\* `ernie-rt (.*?)routing\.svg`$", PAGE, re.MULTILINE)
    assert found is not None
    command(*shlex.split(found[1]), tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text("utf-8") == (DOCS / "images" / "routing.svg").read_text("utf-8")


def test_python() -> None:
    ((source, shown),) = re.findall(r"^```python\n(.*?)^```\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(source, "docs/routing.md", "exec"), {})
    assert printed.getvalue() == shown


def test_json_fields_are_described() -> None:
    told = made().to_json()
    router, token = told["routers"][0], told["tokens"][0]
    fields = {*told, *router, *router["bias"], *token, *token["routes"][0]}
    table = PAGE.partition("## JSON")[2].partition("## ")[0]
    assert [field for field in sorted(fields) if f"`{field}`" not in table] == []
