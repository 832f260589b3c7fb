"""`ernie-rt doctor`: what is wrong here, or slower than need be, and what helps."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ernie_rt.cli import completion
from ernie_rt.cli.options import Json
from ernie_rt.display import printable
from ernie_rt.errors import BackendError

if TYPE_CHECKING:
    from ernie_rt.cli.group import Commands
    from ernie_rt.contract.findings import Finding
    from ernie_rt.doctor.report import Report
    from ernie_rt.doctor.trial import Trial


def doctor(
    context: typer.Context,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Try this backend alone; may be given several times.", autocompletion=completion.backends),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="How long a backend may take on a device; 60 when not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is broken or slow on this machine, and what helps.

    Runs a small model on every backend and device, each in a child process, and compares its answers with what is
    known. Exit code 1: something is broken.
    """
    from ernie_rt.cli import lazy
    from ernie_rt.cli.output import say, table, write

    try:
        from ernie_rt.doctor.examination import SECONDS, examine
    except Exception as error:  # a package that is damaged may raise anything
        raise _beyond_examination(error) from error

    def progress(what: str) -> None:
        if sys.stderr.isatty():
            say(f"looking at {what} …")

    root = context.find_root()
    progress("commands")
    commands = [lazy.examine(plugin) for plugin in cast("Commands", root.command).plugins(root)]
    report = examine(backend or (), seconds=seconds or SECONDS, commands=commands, progress=progress)
    if as_json:
        fields = report.to_json()
        for finding in fields["findings"]:
            finding["command"] = here(finding["command"])
        write(json.dumps(fields, indent=1) + "\n")
    else:
        for fact in report.facts:
            write(f"{fact.name}: {fact.text}\n")
        write("\n")
        table([["BACKEND", "DEVICE", "DTYPE", "WEIGHTS", "ANSWERS", "ERROR", "WHAT RAN"], *_rows(report)])
        for about, finding in report.findings:
            write(f"\n{finding.severity}  {about}: {printable(finding.seen)}\n{_told(finding)}")
        counts = f"{report.count('broken')} broken, {report.count('slow')} slow, {report.count('remark')} remarks"
        write(f"\n{counts}; {report.seconds:.1f} s\n")
    if not report.ok:
        raise typer.Exit(1)


def _beyond_examination(error: Exception) -> BackendError:
    """That the examination cannot even begin, since a package that it needs itself is damaged."""
    from ernie_rt.discovery.child import one_line
    from ernie_rt.discovery.installed import OWN
    from ernie_rt.discovery.requirements import damaged, needed, reinstall

    packages = needed(OWN)
    guilty = [found for found in packages if damaged(found)] or packages
    return BackendError(
        f"a package that ernie-rt needs cannot be imported: {one_line(error)}", hint=here(reinstall(*guilty))
    )


def here(command: str) -> str:
    """A command that reaches this environment from any shell: its own pip and Python, where the shell finds others."""
    for name in ("pip", "python"):
        found = shutil.which(name)
        if found is None or Path(found).parent != Path(sys.executable).parent:
            own = shlex.quote(sys.executable) + (" -m pip" if name == "pip" else "")
            command = re.sub(rf"(?:(?<=^)|(?<=&& )){name}(?= )", lambda _, own=own: own, command)  # type: ignore[misc]
    return command


def _rows(report: Report) -> Iterator[list[str]]:
    for backend in report.backends:
        trials = [(one.device, trial) for one in backend.tried for trial in one.trials]
        if not trials:
            yield [backend.name, "-", "-", "-", "-", "-", backend.absence or "see below"]
        for device, trial in trials:
            yield [backend.name, device, trial.dtype, trial.storage, *_outcome(trial), _ran(trial)]


def _outcome(trial: Trial) -> tuple[str, str]:
    if trial.error is None:
        return "none" if trial.wrong else "right", "-"
    beside = f" ({trial.error / trial.noise:.1f} of the usual)" if trial.noise else ""
    return "wrong" if trial.wrong else "right", f"{trial.error:.1e}{beside}"


def _ran(trial: Trial) -> str:
    if trial.executed is None:
        return "it does not say"
    pieces = (f"{count:,} on {place}" for place, count in trial.executed.pieces.items())
    return printable(", ".join([*pieces, *trial.executed.notes]))


def _told(finding: Finding) -> str:
    lines = {"costs": finding.costs, "fix": here(finding.command) or finding.advice}
    if finding.command:
        lines["also"] = finding.advice
    return "".join(f"    {f'{name}:':<7}{printable(text)}\n" for name, text in lines.items() if text)
