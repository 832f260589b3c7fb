"""What became of mutants: as JSON, which a later run can take up, and as tables and diffs to read."""

from __future__ import annotations

import difflib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from mutation.operators import Mutant
from mutation.running import Verdict

AROUND: Final = 80
"""Bytes around a mutant by which it is found again in a file that has changed."""


def diff(mutant: Mutant, source: bytes) -> str:
    before, after = (text.decode().splitlines(keepends=True) for text in (source, mutant.of(source)))
    return "".join(difflib.unified_diff(before, after, mutant.path, mutant.path, n=2))


def write(path: Path, verdicts: Sequence[Verdict], packages: Sequence[str], sources: Mapping[str, bytes]) -> None:
    told = []
    for verdict, package in zip(verdicts, packages, strict=True):
        mutant, source = verdict.mutant, sources[verdict.mutant.path]
        lead = min(mutant.start, AROUND)
        near = source[mutant.start - lead : mutant.end + AROUND].decode(errors="surrogateescape")
        told.append(asdict(verdict) | {"package": package, "near": near, "lead": lead, "diff": diff(mutant, source)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1))


def survivors(path: Path, sources: Mapping[str, bytes]) -> list[tuple[str, Mutant]]:
    """Of an earlier report, each with its package; those are left out whose place is no longer there."""
    found = []
    for told in json.loads(path.read_text()):
        mutant, near = Mutant(**told["mutant"]), told["near"].encode(errors="surrogateescape")
        source = sources.get(mutant.path, b"")
        if told["outcome"] == "survived" and source.count(near) == 1:
            start = source.index(near) + told["lead"]
            line = source.count(b"\n", 0, start) + 1
            moved = replace(mutant, line=line, start=start, end=start + mutant.end - mutant.start)
            found.append((told["package"], moved))
    return found


def table(outcomes: Iterable[tuple[str, Verdict]]) -> str:
    """For each name: killed, of those at import and by a limit of time, survived, and the share that was killed."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in outcomes:
        rows[name].update([verdict.outcome])
        rows["all"].update([verdict.outcome])
    lines = [
        f"{'':14}" + "".join(f"{name:>9}" for name in ("mutants", "killed", "import", "hang", "survived", "share"))
    ]
    for name in (*sorted(rows.keys() - {"all"}), "all"):
        counts: Mapping[str, Any] = rows[name]
        total, survived = rows[name].total(), counts["survived"]
        share = f"{(total - survived) / max(total, 1):.0%}"
        figures = (total, total - survived, counts["broken"], counts["hang"], survived, share)
        lines.append(f"{name:14}" + "".join(f"{figure!s:>9}" for figure in figures))
    return "\n".join(lines)
