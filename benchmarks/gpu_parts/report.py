"""What a part has found: tables that are printed row by row, as they are made, and kept for JSON."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

UNMEASURED: Final = "?"
"""In a dry run, a figure that a card would give."""
NARROW: Final = 10


class Measured(float):
    """A figure that only a card can give; what is counted or worked out is a plain number."""


Cell = str | int | float | Measured


class Table:
    """Rows under heads; a head's width is that of its column, and a row may overflow it."""

    def __init__(self, title: str, heads: tuple[str, ...], dry: bool) -> None:
        self._heads, self._dry = heads, dry
        self.record: dict[str, Any] = {"title": title, "columns": [head.strip() for head in heads], "rows": []}
        print(f"\n{title}\n{self._line(heads)}", flush=True)

    def row(self, *cells: Cell) -> None:
        assert len(cells) == len(self._heads), f"{len(cells)} cells under {len(self._heads)} heads"
        self.record["rows"].append([None if self._hides(cell) else cell for cell in cells])
        print(self._line(tuple(UNMEASURED if self._hides(cell) else shown(cell) for cell in cells)), flush=True)

    def _hides(self, cell: Cell) -> bool:
        return self._dry and isinstance(cell, Measured)

    def _line(self, cells: tuple[str, ...]) -> str:
        first, *others = (
            cell.strip().ljust(len(head)) if place == 0 else cell.strip().rjust(max(NARROW, len(head)))
            for place, (cell, head) in enumerate(zip(cells, self._heads, strict=True))
        )
        return "  ".join([first, *others])


class Report:
    """Of one part, which has `limit` seconds. What fails is told, and the rest goes on."""

    def __init__(self, facts: dict[str, Any], *, dry: bool, limit: float) -> None:
        self._began, self._limit, self.dry = time.monotonic(), limit, dry
        self._record: dict[str, Any] = {**facts, "dry_run": dry, "tables": [], "notes": [], "failures": []}
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        if dry:
            print(f"dry run: small shapes on the CPU; {UNMEASURED} is what a card would be asked")

    @property
    def ok(self) -> bool:
        return not self._record["failures"]

    def table(self, title: str, *heads: str) -> Table:
        table = Table(title, heads, self.dry)
        self._record["tables"].append(table.record)
        return table

    def note(self, text: str) -> None:
        self._record["notes"].append(text)
        print(f"  {text}", flush=True)

    def fail(self, text: str) -> None:
        self._record["failures"].append(text)
        print(f"  FAILED: {text}", flush=True)

    @property
    def left(self) -> float:
        """Seconds of the limit that are left."""
        return self._limit - (time.monotonic() - self._began)

    def has(self, seconds: float, what: str) -> bool:
        """Whether so much time is left for it; that it is left out is noted."""
        if self.left < seconds:
            self.note(f"left out, since {max(self.left, 0):.0f} s are left: {what}")
        return self.left >= seconds

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Have a failure of the block be told, with where it came from, and end nothing but the block."""
        try:
            yield
        except Exception as problem:
            traceback.print_exc(limit=-6, file=sys.stderr)
            self.fail(f"{what}: {type(problem).__name__}: {problem}")

    def write(self, path: Path) -> None:
        self._record["seconds"] = round(time.monotonic() - self._began, 1)
        path.write_text(json.dumps(self._record, indent=1) + "\n")


def shown(cell: Cell) -> str:
    """`6,712`, `0.0413`, `3.04`, `385`: three or four digits that matter."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1000:
        return f"{round(cell):,}"
    return f"{cell:.3g}"
