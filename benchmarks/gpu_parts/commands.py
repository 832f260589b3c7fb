"""Programs that run beside one another, each for a while at most, and what they said at their end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu_parts.report import Measured, Report

ROOT: Final = Path(__file__).parents[2]
TOGETHER: Final = 4
SPARE: Final = 5
"""Seconds of the limit that are left for what comes after."""


@dataclass(frozen=True, slots=True)
class Command:
    what: str
    arguments: Sequence[str]
    """Of this Python."""


def conform(backend: str, device: str, dtype: str, *options: str, dry: bool) -> Command:
    """The conformance suite; in a dry run its first level alone."""
    level = ("--level", "L0") if dry else ()
    arguments = ["conform", backend, "--device", device, "--dtype", dtype, *options, *level, "--json", "--verbose"]
    return Command(" ".join(["conform", backend, dtype, *options]), ["-m", "ernie_rt", *arguments])


def tests(path: str, device: str, *, dry: bool) -> Command:
    """A file of tests, those of the device; in a dry run they are only collected. Warnings are those of any version."""
    only = ["--collect-only"] if dry else []
    options = ["-q", "-m", "", "-k", device, "-o", "filterwarnings=default", "-p", "no:cacheprovider", *only]
    return Command(path, ["-m", "pytest", path, *options])


def run_all(report: Report, title: str, commands: Sequence[Command]) -> None:
    """A row for each command, as it ends. They start in order, a few at a time, and share the time that is left."""
    table = report.table(title, f"{'what':44}", "seconds", "outcome".ljust(60))
    with ThreadPoolExecutor(TOGETHER) as pool:
        waiting = {pool.submit(outcome, report, command): command for command in commands}
        for done in as_completed(waiting):
            seconds, ok, said, details = done.result()
            table.row(waiting[done].what, Measured(seconds), said)
            for detail in details:
                report.note(detail)
            if not ok:
                report.fail(f"{waiting[done].what}: {said}")


def outcome(report: Report, command: Command) -> tuple[float, bool, str, list[str]]:
    """Seconds, whether it went well, what it said in a line, and more lines if it did not. Running out of time is no
    failure: it is said."""
    began, left = time.monotonic(), report.left - SPARE
    if left < SPARE:
        return 0.0, True, "left out: no time is left", []
    try:
        done = subprocess.run(
            [sys.executable, *command.arguments], cwd=ROOT, capture_output=True, text=True, timeout=left
        )
    except subprocess.TimeoutExpired as stopped:
        counts, failed = so_far((stopped.stderr or b"").decode(errors="replace"))
        return left, not failed, f"not done in {left:.0f} s; {counts} until then", failed
    said, details = read(done.stdout)
    if done.returncode and not details:
        details = (done.stdout + done.stderr).splitlines()[-12:]
    return time.monotonic() - began, done.returncode == 0, said or f"exit code {done.returncode}", details


def so_far(lines: str) -> tuple[str, list[str]]:
    """The counts of a suite that names its checks as they are done, and those that failed."""
    said = [line for line in lines.splitlines() if line.startswith(("passed ", "failed "))]
    failed = [line.removeprefix("failed ") for line in said if line.startswith("failed ")]
    return f"{len(said) - len(failed)} passed, {len(failed)} failed", failed


def read(output: str) -> tuple[str, list[str]]:
    """The counts of a conformance report and its failed checks; of anything else the last line."""
    try:
        report: Mapping[str, Any] = json.loads(output)
    except ValueError:
        lines = output.strip().splitlines()
        return (lines[-1].strip("= ") if lines else ""), []
    counts = {status: sum(level[status] for level in report["levels"].values()) for status in ("passed", "failed")}
    failed = [f"{r['check']}: {r['reason']}" for r in report["results"] if r["status"] == "failed"]
    return ", ".join(f"{count} {status}" for status, count in counts.items()), failed
