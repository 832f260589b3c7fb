"""A report as pictures: latencies and throughput over the load, as SVG or a page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from ernie_rt import writing
from ernie_rt.errors import OptionError
from ernie_rt.html import STYLE, write_page
from ernie_rt_serve.bench.report import duration, report_text
from ernie_rt_serve.bench.run import Phase, Report

WIDTH: Final = 1000
HEIGHT: Final = 260
LEFT: Final = 80
TOP: Final = 40
BOTTOM: Final = 40
"""The size of a chart and its margins, in SVG units."""

STEPS: Final = 4
"""Of the axis of values."""

Line = tuple[str, Sequence[float | None]]
"""What a line shows, and its value at each load."""


def check_plot(path: Path) -> None:
    """OptionError for a file that is to be neither SVG nor a page, WriteError for one that cannot be written."""
    if path.suffix not in (".svg", ".html"):
        raise OptionError("--plot has no known ending", expected="a .svg or .html file", found=path.name)
    writing.check_targets(path)


def write_plot(path: Path, report: Report) -> None:
    svg = report_svg(report)
    if path.suffix == ".html":
        write_page(path, f"{report.settings.model} under load", svg, f"<pre>{escape(report_text(report))}</pre>")
        return
    with writing.write_atomic(path) as file:
        file.write(svg.encode("utf-8", "replace"))


def report_svg(report: Report) -> str:
    """Three charts, one below the other."""
    phases = report.phases
    charts = [
        _chart("Time to first token", duration, _latencies(phases, "ttft"), phases),
        _chart("Time per output token", duration, _latencies(phases, "tpot"), phases),
        _chart(
            "Tokens per second",
            lambda value: f"{value:.0f}",
            (
                ("output", [phase.summary.output_tokens_per_second for phase in phases]),
                ("prompt", [phase.summary.prompt_tokens_per_second for phase in phases]),
            ),
            phases,
        ),
    ]
    placed = (f'<g transform="translate(0 {HEIGHT * i})">\n{chart}\n</g>' for i, chart in enumerate(charts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(charts)}" role="img" '
        f'aria-label="Latency and throughput over the load">\n<style>{STYLE}</style>\n'
        + "\n".join(placed)
        + "\n</svg>\n"
    )


def _latencies(phases: Sequence[Phase], name: str) -> tuple[Line, Line]:
    spreads = [phase.summary.latencies[name] for phase in phases]
    return (
        ("p50", [None if spread is None else spread.p50 for spread in spreads]),
        ("p99", [None if spread is None else spread.p99 for spread in spreads]),
    )


def _chart(title: str, show: Callable[[float], str], lines: tuple[Line, Line], phases: Sequence[Phase]) -> str:
    """Two lines over the loads, from zero up."""
    most = max((value for _, values in lines for value in values if value is not None), default=0.0)
    step = _step(most or 1.0)
    top = step * STEPS

    def x(place: int) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (place + 0.5) / len(phases)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)

    (a, _), (b, _) = lines
    keys = " and ".join(f'<tspan style="fill: var(--{key})">{name}</tspan>' for key, name in (("a", a), ("b", b)))
    parts = [f'<text x="{LEFT}" y="20">{title}: {keys}</text>']
    for mark in range(STEPS + 1):
        value = step * mark
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value):.1f}" text-anchor="end" dy="4">{show(value)}</text>')
    for place, phase in enumerate(phases):
        label = escape(str(phase.load))
        parts.append(f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    for key, (name, values) in zip("ab", lines, strict=True):
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in known)
        parts.append(f'<polyline class="line {key}" points="{points}"/>')
        parts += [
            f'<circle class="dot {key}" cx="{x(place):.1f}" cy="{y(value):.1f}" r="4">'
            f"<title>{escape(str(phases[place].load))}: {name} {show(value)}</title></circle>"
            for place, value in known
        ]
    return "\n".join(parts)


def _step(most: float) -> float:
    """A round number, of which `STEPS` reach up to `most`."""
    power: float = 10.0 ** math.floor(math.log10(most / STEPS))
    return next(step for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power) if step * STEPS >= most)
