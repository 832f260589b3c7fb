"""What is told of an audit: what is vulnerable, and that nothing was asked where nothing was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from audit import audit

BAD = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.10.1"]}]}
FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
WORSE = {"name": "h11", "version": "0.14", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
PROGRAM = """
import json, sys
known, pinned = {answers!r}
path = sys.argv[sys.argv.index("--requirement") + 1]
answer = known if path.endswith("known.txt") else pinned
print(answer) if answer.startswith("{{") else sys.exit(answer)
"""


def answer(*found: object) -> str:
    return json.dumps({"dependencies": found})


@pytest.mark.parametrize(
    ("known", "pinned", "fine", "said"),
    [
        (answer(BAD), answer(FINE, FINE), True, ["2 of 2 releases audited"]),
        (answer(BAD), answer(FINE, SKIPPED), True, ["1 of 2 releases audited", "NOT AUDITED: torch"]),
        (
            answer(BAD), answer(FINE, WORSE), False,
            ["h11 0.14: PYSEC-2, mended in no release", "2 of 2 releases audited"],
        ),
        (
            answer({"name": "jinja2", "skip_reason": "not found"}), answer(FINE, FINE), True,
            ["NOT AUDITED: no advisories could be had here (nothing is said against jinja2==2.10)"],
        ),
        ("no route", answer(FINE, FINE), True, ["NOT AUDITED: no advisories could be had here (no route)"]),
        (answer(BAD), "cut off", True, ["NOT AUDITED: no advisories could be had here (cut off)"]),
    ],
)  # fmt: skip
def test_what_is_told(known: str, pinned: str, fine: bool, said: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(answers=(known, pinned)))
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# two\na==1\nb==2\n")
    assert audit([sys.executable, str(program)], constraints) == (fine, said)
