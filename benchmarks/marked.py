"""Pages with a table that a script measured: it stands between two comments, the first of which names the weights.

<!-- by benchmarks/demo_quality.py, of DIGEST -->
…
<!-- end -->
"""

from __future__ import annotations

import re
from pathlib import Path

from ernie_rt.errors import OptionError
from ernie_rt.writing import write_atomic


def marks(script: str) -> re.Pattern[str]:
    """Where in a page the table of a script of this folder is; the first group is the weights' digest."""
    return re.compile(rf"(?<=<!-- by benchmarks/{re.escape(script)}, of )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def marked(path: Path, script: str) -> str:
    """The text of a page that has a place for the table."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise OptionError("no page to write into", where=str(path), found=error.strerror) from error
    if (count := len(marks(script).findall(text))) != 1:
        raise OptionError("not one place for the table", where=str(path), found=f"{count} places",
                          hint="See docs/demo.md for the comments between which it goes")  # fmt: skip
    return text


def filled(text: str, script: str, weights: str, table: str) -> str:
    """The text of a page with a table in its place."""
    return marks(script).sub(lambda match: f"{weights}{match[2]}{table}\n", text)


def write(path: Path, text: str) -> None:
    with write_atomic(path) as file:
        file.write(text.encode())
