"""`make sbom`: the bill of materials of what is installed, as CycloneDX, with all that this distribution asks for.

python tools/sbom.py CYCLONEDX-PY build/sbom.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
EXTRA: Final = "dev"
"""What `make` installs."""


def declared(project: Mapping[str, Any], extra: str) -> Iterator[Requirement]:
    """What a project asks for with an extra, on this system; extras of its own are followed."""
    for text in (*project["dependencies"], *project["optional-dependencies"][extra]):
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
            for other in sorted(requirement.extras):
                yield from declared(project, other)
        else:
            yield requirement


def lacking(bill: Mapping[str, Any], project: Mapping[str, Any], extra: str = EXTRA) -> list[str]:
    """What is asked for and stands not in a bill of materials, or in another version."""
    versions = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    wanted = {str(each): each for each in declared(project, extra)}
    return [
        text
        for text, each in sorted(wanted.items())
        if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"), prereleases=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, metavar="CYCLONEDX-PY")
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    given.path.parent.mkdir(exist_ok=True)
    about = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--output-file", str(given.path)]
    subprocess.run([str(given.program), "environment", *about, sys.executable], check=True)
    bill = json.loads(given.path.read_text("utf-8"))
    if missing := lacking(bill, tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]):
        raise SystemExit(f"{given.path} lacks {', '.join(missing)}")
    print(f"{given.path}: {len(bill['components'])} components")


if __name__ == "__main__":
    main()
