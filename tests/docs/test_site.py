"""The pages as a site: each has its place, a summary and links that lead somewhere; each command is on a page."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.commands import command
from support.shown import PAGES, ROOT

DOCS = ROOT / "docs"
AROUND = (*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md")
EXAMPLES = ("likely", "yours")
"""Commands that pages make up."""
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def ids(page: Path) -> str:
    return page.name


@cache
def text(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Those that GitHub and the site make of headings."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def navigation(entries: list[dict[str, Any]]) -> list[str]:
    pages = []
    for entry in entries:
        for below in entry.values():
            pages += [below] if isinstance(below, str) else navigation(below)
    return pages


def test_every_page_has_its_place() -> None:
    settings = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))
    listed, pages = navigation(settings["project"]["nav"]), {page.name for page in PAGES[1:]}
    assert set(listed) == pages and len(listed) == len(pages)
    index = text(DOCS / "index.md")
    assert not [name for name in pages - {"index.md"} if f"({name})" not in index]


@pytest.mark.parametrize("page", AROUND, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in filter(None, (a or b for a, b in LINK.findall(text(page)))):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert page.parent != DOCS or found.resolve().is_relative_to(DOCS), f"{target} is not on the site"
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page.name != "index.md"], ids=ids)
def test_a_page_says_first_what_it_says(page: Path) -> None:
    head = page.read_text("utf-8")[:1500]
    assert re.match(r"# [^\n]+\n(<!-- [^\n]* -->\n)*\n(?:[^\n]+\n\n)?\*\*In short\.\*\* ", head)


def names() -> list[str]:
    _, _, listed = command("--help").out.partition("\nCommands:\n")
    return re.findall(r"^  ([a-z][\w-]*) ", listed, re.MULTILINE)


@cache
def options(name: str) -> frozenset[str]:
    """What a command's help speaks of, and that of those below it."""
    told = command(*name.split(), "--help").out
    _, _, below = told.partition("\nCommands:\n")
    for each in re.findall(r"^  ([a-z][\w-]*) ", below if name else "", re.MULTILINE):
        told += command(name, each, "--help").out
    return frozenset(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", told))


def test_every_command_is_on_a_page() -> None:
    shown = "\n".join(page.read_text("utf-8") for page in PAGES[1:])
    assert not [name for name in names() if not re.search(rf"ernie-rt {name}\b", shown)]


@pytest.mark.parametrize("page", AROUND, ids=ids)
def test_commands_and_their_options_are_there(page: Path) -> None:
    whole = page.read_text("utf-8")
    lines = re.findall(r"`(ernie-rt [^`\n]+)`", whole)
    lines += re.findall(r"^\$ (?:\w+=\S+ )?(ernie-rt (?:.*\\\n)*.*)$", whole, re.MULTILINE)
    known = names()
    for line in lines:
        bare = re.sub(r'"[^"]*"|\'[^\']*\'', "", re.split(r"[|>;]|  #|&&", line)[0])
        _, *words = re.sub(r" -p no:\w+", "", bare).split()
        if not words or words[0] in ("…", "NAME", *EXAMPLES):
            continue
        if words[0].startswith("-"):
            assert set(words) <= options(""), line
            continue
        assert words[0] in known, f"{line}: no such command"
        given = {each for word in words for each in re.findall(r"^--?[a-z][a-z-]*", word)}
        assert given <= options(words[0]) | {"-h"}, line
