"""What is asked for is new enough not to have what was once wrong with it, and what is pinned satisfies it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
    if not text.startswith("ernie-rt[")
]
PINNED = {
    canonicalize_name(name): version
    for name, _, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    if version
}
FLOORS = {
    "h11": ("0.16", "chunks of a body that are framed wrongly were taken"),
    "jinja2": ("3.1.6", "a template could leave the sandbox by |attr"),
    "onnx": ("1.21", "external data led out of the folder (CVE-2026-27489, CVE-2026-34446)"),
    "sentencepiece": ("0.2.1", "a model corrupted memory"),
    "starlette": ("1.3.1", "a Host header changed the path, and forms had no limits (CVE-2026-48710)"),
    "transformers": ("5.3", "a field of config.json ran code; tests alone use it"),
}


def lowest(requirement: Requirement) -> Version:
    return max(Version(each.version) for each in requirement.specifier if each.operator in (">=", "==", "~="))


@pytest.mark.parametrize("name", FLOORS)
def test_floors(name: str) -> None:
    floor, _ = FLOORS[name]
    asked = [each for each in REQUIREMENTS if canonicalize_name(each.name) == name]
    assert asked and all(lowest(each) >= Version(floor) for each in asked)


def test_what_is_pinned_is_what_is_asked_for() -> None:
    """The command for lm-evaluation-harness, which tests do without, is not pinned."""
    for each in REQUIREMENTS:
        if each.name != "lm-eval":
            assert each.specifier.contains(PINNED[canonicalize_name(each.name)]), each


def test_the_supply_chains_tools_are_pinned() -> None:
    assert {"pip-audit", "cyclonedx-bom", "ruff", "mypy", "setuptools", "wheel"} <= PINNED.keys()
