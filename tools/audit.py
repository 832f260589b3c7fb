"""`make audit`: whether a vulnerability is known in what constraints.txt pins.

    python tools/audit.py PIP-AUDIT

pip-audit asks PyPI. What an index does not answer, as a mirror may not, pip-audit calls free of known vulnerabilities;
here it is said. A release that is known to have some is asked about first: that it is named shows that answers come.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
KNOWN: Final = "jinja2==2.10"


class Unanswered(Exception):
    """No advisories came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The vulnerabilities of releases, each in a line, and the releases of which nothing was said."""

    vulnerable: list[str]
    skipped: list[str]


def ask(program: Sequence[str], requirements: Path) -> Answer:
    """What pip-audit says of releases that are pinned; Unanswered when it says nothing."""
    flags = ["--requirement", str(requirements), "--no-deps", "--disable-pip", "--timeout", "10", "--format", "json"]
    ran = subprocess.run([*program, *flags, "--progress-spinner", "off"], capture_output=True, text=True, cwd="/")
    try:
        found: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = ran.stderr.strip().splitlines()
        raise Unanswered(said[-1][-200:] if said else f"exit code {ran.returncode}") from None
    return Answer(
        [
            f"{each['name']} {each['version']}: {bad['id']}, mended in {', '.join(bad['fix_versions']) or 'no release'}"
            for each in found
            for bad in each.get("vulns", ())
        ],
        [each["name"] for each in found if "skip_reason" in each],
    )


def audit(program: Sequence[str], constraints: Path) -> tuple[bool, list[str]]:
    """Whether nothing is known to be wrong, and what to say."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder, "known.txt")
        known.write_text(f"{KNOWN}\n")
        try:
            if not ask(program, known).vulnerable:
                raise Unanswered(f"nothing is said against {KNOWN}")
            answer = ask(program, constraints)
        except Unanswered as error:
            return True, [f"NOT AUDITED: no advisories could be had here ({error})"]
    count = sum(1 for line in constraints.read_text().splitlines() if "==" in line)
    said = [*answer.vulnerable, f"{count - len(answer.skipped)} of {count} releases audited"]
    if answer.skipped:
        said.append(f"NOT AUDITED: {', '.join(answer.skipped)}")
    return not answer.vulnerable, said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, metavar="PIP-AUDIT")
    fine, said = audit([str(parser.parse_args().program.absolute())], ROOT / "constraints.txt")
    print("\n".join(said))
    return not fine


if __name__ == "__main__":
    raise SystemExit(main())
