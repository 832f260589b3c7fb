"""A bill of materials has all that is asked for."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.utils import canonicalize_name

from sbom import declared, lacking

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_what_is_asked_for() -> None:
    names = {canonicalize_name(each.name) for each in declared(PROJECT, "dev")}
    assert {"numpy", "starlette", "torch", "pytest", "ruff", "jinja2"} <= names
    assert not {"ernie-rt", "lm-eval", "onnxruntime-gpu"} & names


def test_what_is_lacking_is_named() -> None:
    components = [{"name": each.name, "version": version(each.name)} for each in declared(PROJECT, "dev")]
    assert lacking({"components": components}, PROJECT) == []
    without = [each for each in components if each["name"] != "starlette"]
    for others in ([], [{"name": "Starlette", "version": "0.46"}]):
        assert lacking({"components": [*without, *others]}, PROJECT) == ["starlette>=1.3.1"]
