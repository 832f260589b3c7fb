"""docs/commands.md: its example does what is shown, and the names that it offers are there."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_rt.cli import options
from support.broken_plugins import forget
from support.commands import command

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's distribution, as if it had been installed."""
    settings = tomllib.loads(block("toml"))
    project = settings["project"]
    (module,) = settings["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(block("python"))
    info = tmp_path / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["ernie_rt.commands"]
    (info / "entry_points.txt").write_text(
        "[ernie_rt.commands]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ERNIE_RT_PLUGINS", raising=False)
    yield
    forget(tmp_path)


def test_the_example(example: None) -> None:
    for shown in re.split(r"^\$ ernie-rt ", block("console"), flags=re.MULTILINE)[1:]:
        line, _, expected = shown.partition("\n")
        ran = command(*shlex.split(line))
        figure = re.compile(r"^\d\.\d+", re.MULTILINE)
        assert figure.sub("", ran.err + ran.out) == figure.sub("", expected)
        found, told = (list(map(float, figure.findall(text))) for text in (ran.out, expected))
        assert found == pytest.approx(told, abs=0.01)
    assert "Print the tokens that may well come next" in command("likely", "--help").out


def test_what_it_offers_is_there() -> None:
    rows = re.findall(r"^\| `(ernie_rt\.cli\.\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    offered = {module: set(re.findall(r"`(?:with )?(\w+)", text)) for module, text in rows}
    assert set(offered) == {"ernie_rt.cli.options", "ernie_rt.cli.loaded", "ernie_rt.cli.output"}
    for module, names in offered.items():
        found = vars(importlib.import_module(module))
        assert names - {"ernie_rt", "with"} <= found.keys(), module
    kinds = {name for name, value in vars(options).items() if hasattr(value, "__metadata__")}
    assert kinds <= offered["ernie_rt.cli.options"], "every type of parameter is named"
