"""A report as a picture: a bar for each speed, with its spread and, for decoding, the floor."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from ernie_rt.html import STYLE
from ernie_rt_bench.report import speeds
from ernie_rt_bench.workload import Kind, Report, Result, Spread

WIDTH: Final = 1000
LEFT: Final = 300
RIGHT: Final = 150
TOP: Final = 34
ROW: Final = 30
BAR: Final = 18
"""The sizes of a chart, in SVG units."""

Bar = tuple[str, Spread, float | None]
"""A name, the speeds, and the most that memory allowed."""


def report_svg(report: Report) -> str:
    """A chart for each thing that was measured, one below the other."""
    charts, height = [], 0
    kinds: tuple[Kind, ...] = ("prefill", "decode")
    for context in report.workload.contexts:
        for kind in kinds:
            bars = [
                (result.name, speeds(report, result)[kind, context], _floor(result, kind, context))
                for result in report.results
            ]
            title = f"prefill {context}" if kind == "prefill" else f"decode {report.workload.new} after {context}"
            charts.append(f'<g transform="translate(0 {height})">\n{_chart(f"{title}, tokens/s", bars)}\n</g>')
            height += TOP + ROW * len(bars)
    body = "\n".join(charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 10}" role="img" '
        f'aria-label="{escape(report.model)}: tokens a second">\n<style>{STYLE}'
        f".bar {{ fill: var(--a); }} .spread {{ stroke: var(--ink); stroke-width: 1.5; }} "
        f".floor {{ stroke: var(--b); stroke-width: 2; stroke-dasharray: 4 3; }}</style>\n{body}\n</svg>\n"
    )


def _floor(result: Result, kind: Kind, context: int) -> float | None:
    shares = result.shares(context) if kind == "decode" else []
    if not shares:
        return None
    return Spread.of(each.speed / share for each, share in zip(result.of(kind, context), shares, strict=True)).median


def _chart(title: str, bars: Sequence[Bar]) -> str:
    most = max(max(speed.most, floor or 0.0) for _, speed, floor in bars)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    has_floor = any(floor is not None for *_, floor in bars)
    parts = [f'<text x="10" y="20">{escape(title)}{"; dashed: all that memory allows" if has_floor else ""}</text>']
    for place, (name, speed, floor) in enumerate(bars):
        top, middle = TOP + ROW * place, TOP + ROW * place + BAR / 2
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="bar" x="{LEFT}" y="{top}" width="{x(speed.median) - LEFT:.1f}" height="{BAR}"/>',
            f'<line class="spread" x1="{x(speed.least):.1f}" x2="{x(speed.most):.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text x="{max(x(speed.most), x(floor or 0.0)) + 8:.1f}" y="{middle + 4}">{speed.median:.1f}</text>',
        ]
        if floor is not None:
            parts.append(f'<line class="floor" x1="{x(floor):.1f}" x2="{x(floor):.1f}" y1="{top}" y2="{top + BAR}"/>')
    return "\n".join(parts)
