"""`ernie-rt conform`: does a backend compute what it should?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt.cli.output import answers_alone, say, status, write

if TYPE_CHECKING:
    from ernie_rt.conformance.drift import Drift
    from ernie_rt.conformance.report import Report, Result
    from ernie_rt.conformance.suite import Suite


def conform(
    backend: Annotated[
        str,
        typer.Argument(
            metavar="BACKEND", help="A backend by name (`ernie-rt backends`).", autocompletion=completion.backends
        ),
    ],
    level: Annotated[
        list[str] | None,
        typer.Option(
            help="L0 to L5; may be given several times. All when not given.", autocompletion=completion.levels
        ),
    ] = None,
    device: opt.Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="auto (float32 where it can), float32, bfloat16, float16 or float64.",
            autocompletion=completion.dtypes,
        ),
    ] = "auto",
    storage: Annotated[
        str,
        typer.Option(
            help="How weights are stored: plain, int8 or int4, perhaps with /BLOCK and /tiled.",
            autocompletion=completion.storages,
        ),
    ] = "plain",
    model: Annotated[
        str | None,
        typer.Option(
            help="L2 and L3 on this checkpoint, in place of the micro-models; no L4 and L5.",
            autocompletion=completion.models,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="At least 16,000 teacher-forced positions.")] = False,
    expect: Annotated[
        Path | None, typer.Option(help="Features, quirks, xfails and skips, in place of the backend's own file.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name every check, with its figures.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Put a backend through the conformance suite.

    Metadata, ops, whole models, invariants, trained weights. Every limit is derived from the arithmetic that the
    backend declares; WORST is the check nearest to its own, as a share of it: above 1 it fails. Exit code 1: something
    failed, or passed that was declared to fail.
    """
    from ernie_rt.conformance.suite import Suite
    from ernie_rt.writing import check_targets

    check_targets(html)
    suite = Suite(backend, None, device, dtype, storage, full, expect, model)
    levels = tuple(level or suite.levels)
    suite.checks(levels)
    target = suite.subject.target
    say(f"{backend} on {target.device} in {target.dtype}" + (f", weights {storage}" if storage != "plain" else ""))

    with answers_alone(), status() as tell:

        def progress(result: Result, number: int, count: int) -> None:
            if verbose:
                say(_line(result))
            else:
                tell(f"{number} of {count} checks, {result.check}")

        report = suite.run(levels, progress)
        drift, about = _drift(suite, report, tell) if html is not None else (None, [])
    for stored, taken in report.subject["accepts"].items():
        if not taken:
            say(f"{stored} is not accepted: the backend was given the numbers, in {target.dtype}")
    if html is not None:
        from ernie_rt.conformance.report_page import report_html
        from ernie_rt.html import write_page

        write_page(html, f"Conformance of {backend}", report_html(report.to_json(), drift, about))
    if as_json:
        write(json.dumps(report.to_json(), indent=1) + "\n")
    else:
        write(f"{report.table()}\n")
    if not report.ok:
        raise typer.Exit(1)


def _drift(suite: Suite, report: Report, tell: Callable[[str], None]) -> tuple[Drift | None, list[tuple[str, str]]]:
    """What the page's plot shows, where whole models were tested; and its prompt, or why there is no plot."""
    from ernie_rt.conformance.suite import DRIFT_PROMPT
    from ernie_rt.errors import ErnieRtError

    if not {"L2", "L3", "L4", "L5"} & set(report.levels):
        return None, []
    tell("drawing how far it lies from float64, layer by layer")
    try:
        return suite.drift(), [("prompt of the plot", DRIFT_PROMPT)]
    except ErnieRtError as error:
        return None, [("no drift plot", str(error))]


def _line(result: Result) -> str:
    figures = ", ".join(f"{name} {value:.3g}" for name, value in result.figures.items())
    parts = (f"{result.status} {result.check}", result.route, figures, result.reason)
    return ": ".join(part for part in parts if part)
