"""What the pages of docs/ and README.md show: blocks of code, and commands with what they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of a page, and what stands below it; the lines of a long one are put together."""

    command: str
    expected: str


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The code blocks of a page, each with its language; of all languages when none is given."""
    found: list[tuple[str, str]] = re.findall(
        r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [(language, text) for language, text in found if not languages or language in languages]


def commands(page: Path) -> list[Shown]:
    """The commands of a page's terminals, in order."""
    return [shown for _, text in blocks(page, "console") for shown in in_terminal(text)]


def in_terminal(text: str) -> list[Shown]:
    """The commands of one terminal."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text.replace("\\\n", " "), re.MULTILINE)
    return [Shown(command, expected) for command, expected in found]


def pattern(expected: str, *, figures: bool = True) -> str:
    """A regular expression for what is shown: … is anything, and lines when alone on one. With `figures`, numbers but 0
    and moments may differ, and the counts of a level may not."""

    def part(text: str) -> str:
        if text == "…":
            return ".*"
        if text.startswith("  "):
            return " +"
        varies = figures and re.fullmatch(r"[1-9][\d.e+-]*(T[\d:+]+)?|0\.\d+", text)
        return r"[\dT:.e+-]+" if varies else re.escape(text)

    def line(text: str) -> str:
        counts = re.match(r"L\d( +\d+){5}(?=\s|$)", text)
        if counts is not None:
            return " +".join(counts[0].split()) + line(text[counts.end() :])
        parts = re.split(r"(…| {2,}|(?<![\w.])\d[\d.e+-]*(?:T[\d:+]+)?)", text)
        return r"(?:.*\n)*?" if text == "…" else "".join(map(part, parts)) + r" *\n"

    return "".join(map(line, expected.splitlines()))
