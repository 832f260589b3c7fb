"""SECURITY.md: every route, every reader of files and every class of attacks is in it, with tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from ernie_rt_serve.app import ENTRIES
from support.uses import ROOT, all_uses

POLICY = (ROOT / "SECURITY.md").read_text("utf-8")
READERS = {
    *(f"ernie_rt.files.{name}" for name in ("map_readonly", "open_readonly", "read_bytes", "read_json")),
    "ernie_rt.untrusted_json.parse_json", "ernie_rt_serve.structs.decode",
}  # fmt: skip
THEMSELVES = {"ernie_rt/files.py", "plugins/ernie_rt_serve/structs.py"}
ATTACKS = 28


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    _, _, below = POLICY.partition(f"\n## {heading}\n")
    rows = [line for line in below.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@cache
def named_in(path: Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef))


def test_every_route() -> None:
    routes = {f"{entry.method} {entry.path.replace(':path', '')}" for entry in ENTRIES}
    pages = {route for route in routes if route.startswith("GET /page/")}
    listed = [name for row in table("Routes") for name in quoted(row[0])]
    assert sorted(listed) == sorted((routes - pages) | {"GET /page/…"})


def test_whatever_reads_files() -> None:
    readers = {module for module, used in all_uses().items() if any(name in READERS for _, name in used)}
    listed = [name for row in table("Files") for name in quoted(row[3])]
    assert sorted(listed) == sorted(readers - THEMSELVES)


@pytest.mark.parametrize("row", table("The attacks"), ids=lambda row: row[0])
def test_an_attack_has_its_place_and_its_tests(row: list[str]) -> None:
    name, what, places, _, tests = row
    assert what and quoted(places) and quoted(tests), name
    assert all((ROOT / place).is_file() for place in quoted(places)), places
    for each in quoted(tests):
        path, _, test = each.partition("::")
        assert (ROOT / path).is_file(), each
        assert not test or test in named_in(ROOT / path), each


def test_every_attack_has_a_row() -> None:
    assert [row[0] for row in table("The attacks")] == [f"A{number}" for number in range(1, ATTACKS + 1)]


def test_what_it_names_is_there() -> None:
    for name in quoted(POLICY):
        if re.match(r"(tests|ernie_rt|backends|plugins)/[\w/.]+$", name):
            assert (ROOT / name).exists(), name
        elif name.startswith("make "):
            assert f"\n{name.removeprefix('make ')}:" in (ROOT / "Makefile").read_text("utf-8"), name
