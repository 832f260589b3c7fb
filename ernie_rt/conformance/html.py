"""Comparisons as a page that needs nothing else: no script, no file from elsewhere, readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from ernie_rt.conformance.drift import Drift, Side
from ernie_rt.conformance.metrics import OP_LIMIT
from ernie_rt.conformance.plot import FLOOR, Layer, layers, number, own, split_lines
from ernie_rt.conformance.replay import Piece

WIDTH: Final = 1000
HEIGHT: Final = 340
LEFT: Final = 60
TOP: Final = 10
BOTTOM: Final = 40
"""The size of a chart and its margins, in SVG units."""

TRAINED: Final = ("positions", "error", "noise", "kl", "kl_plain", "top1", "excused", "match", "length", "ties")
"""The figures of levels 4 and 5 that are shown."""


def drift_html(drift: Drift, show: Callable[[int], str] = str) -> str:
    """The verdict, the drift of both sides as a chart, and every piece in a table. `show` prints a token."""
    split = "" if drift.split is None else f"<pre>{escape(chr(10).join(split_lines(drift, show)))}</pre>\n"
    return (
        f'<p class="verdict {drift.verdict}">{escape(drift.verdict)}: {escape(drift.reason)}</p>\n{split}'
        f"<p>{drift.compared} tokens compared, {len(drift.prompt)} of them the prompt.</p>\n"
        f"<h2>Distance from float64</h2>\n{_keys(drift)}\n{_chart(drift.sides)}\n"
        + "\n".join(_table(label, side) for label, side in zip("AB", drift.sides, strict=True))
    )


def report_html(report: Mapping[str, Any]) -> str:
    """What `Report.to_json` gives: the levels, then every check, those that need attention first."""
    statuses = list(next(iter(report["levels"].values()), {}))
    levels = [[level, *(_figure(counts[status]) for status in statuses)] for level, counts in report["levels"].items()]
    attention = ["failed", "xpassed", "xfailed", "skipped", "passed"]
    results = sorted(report["results"], key=lambda result: attention.index(result["status"]))
    checks = [
        [r["status"], r["check"], _figure(r["figures"].get("margin")), r["route"], f"{r['seconds']:.2f}", r["reason"]]
        for r in results
    ]
    subject = [[name, _figure(value)] for name, value in (report["subject"] | report["machine"]).items()]
    verdict = "same" if report["ok"] else "bug"
    return (
        f'<p class="verdict {verdict}">{"passed" if report["ok"] else "failed"}</p>\n'
        f"{_rows([], subject)}\n<h2>Levels</h2>\n{_rows(['level', *statuses], levels)}\n{_trained(report['results'])}"
        f"<h2>Checks</h2>\n<p>Margin: the worst figure over its limit; above 1 a check fails.</p>\n"
        f"{_rows(['status', 'check', 'margin', 'route', 'seconds', 'reason'], checks)}"
    )


def _trained(results: Sequence[Mapping[str, Any]]) -> str:
    """What was measured on trained weights: how far logits diverge, and how long answers are the oracle's."""
    rows = [
        [r["check"], *(_figure(r["figures"].get(name)) for name in TRAINED)]
        for r in results
        if r["level"] in ("L4", "L5") and r["figures"]
    ]
    return f"<h2>Trained weights</h2>\n{_rows(['check', *TRAINED], rows)}\n" if rows else ""


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a row whose first cell is a failure stands out."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(
        f"<tr{_kind(row[0] in ('failed', 'xpassed'))}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _kind(bad: bool) -> str:
    return ' class="bad"' if bad else ""


def _keys(drift: Drift) -> str:
    names = " · ".join(
        f'<span class="key {key}">{key.upper()} {escape(side.name)}</span>'
        for key, side in zip("ab", drift.sides, strict=True)
    )
    return (
        f'<p>{names} <span class="key">— rms of the error over rms of the values; dashed: what rounding alone brings; '
        "red: wrong by itself</span></p>"
    )


def _chart(sides: Sequence[Side]) -> str:
    grouped = [layers(side) for side in sides]
    names = list(dict.fromkeys(layer.name for side in grouped for layer in side))
    drawn = [value for side in sides for p in side.pieces for value in (_height(p.drift), _height(p.noise)) if value]
    low = math.floor(math.log10(max(min(drawn, default=FLOOR), FLOOR)))
    high = max(math.ceil(math.log10(max(drawn, default=1.0))), low + 1)

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * place / len(names)

    def y(value: float) -> float:
        share = max((math.log10(value) - low) / (high - low), 0.0)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Distance from float64 by layer">']
    for power in range(low, high + 1):
        line = f"{y(10.0**power):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{line}" y2="{line}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{line}" text-anchor="end" dy="4">1e{power}</text>')
    every = -(-len(names) // 16)
    for place, name in enumerate(names):
        parts.append(f'<line class="grid" x1="{x(place):.1f}" x2="{x(place):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        if place % every == 0 or place == len(names) - 1:
            label = escape(name.removeprefix("layers."))
            parts.append(
                f'<text x="{x(place + 0.5):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>'
            )
    parts.append(f'<text x="{x(len(names) / 2):.1f}" y="{HEIGHT - 4}" text-anchor="middle">layer</text>')
    for key, side in zip("ab", grouped, strict=True):
        places = list(_places(side, names))
        for kind in ("noise", "drift"):
            heights = [(place, _height(piece.noise if kind == "noise" else piece.drift)) for place, piece in places]
            points = " ".join(f"{x(place):.1f},{y(height):.1f}" for place, height in heights if height)
            parts.append(f'<polyline class="line {kind} {key}" points="{points}"/>')
        parts += [_dot(key, piece, x(place), y, high) for place, piece in places]
    return "\n".join([*parts, "</svg>"])


def _places(side: Sequence[Layer], names: Sequence[str]) -> list[tuple[float, Piece]]:
    """Where each piece stands on the axis of layers: the last one of a layer at its right edge."""
    return [
        (names.index(layer.name) + (i + 1) / len(layer.pieces), piece)
        for layer in side
        for i, piece in enumerate(layer.pieces)
    ]


def _dot(key: str, piece: Piece, x: float, y: Callable[[float], float], high: int) -> str:
    """A piece as a dot that tells its name and numbers; a wrong one is large, wherever it has no number at the top."""
    if not piece.wrong and not _height(piece.drift):
        return ""
    height = y(_height(piece.drift) or 10.0**high)
    shape, radius = ("dot bad", 6) if piece.wrong else (f"dot {key}", 2.5)
    said = f"{key.upper()} {piece.scope}: drift {number(piece.drift)}, noise {number(piece.noise)}, own {own(piece)}"
    said += f"; {piece.finding}" if piece.finding else ""
    return f'<circle class="{shape}" cx="{x:.1f}" cy="{height:.1f}" r="{radius}"><title>{escape(said)}</title></circle>'


def _height(value: float | None) -> float:
    """What has a place on an axis of logarithms; 0 for what has none."""
    return value if value is not None and 0 < value < math.inf else 0.0


def _table(label: str, side: Side) -> str:
    rows = "\n".join(
        f"<tr{_kind(piece.wrong)}>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(piece)) + "</tr>"
        for piece in side.pieces
    )
    flips = "".join(
        f"<li>{escape(flip.scope)}, token {flip.token}: a gap of {flip.gap:.2g}, where scores drifted by "
        f"{flip.noise:.2g}</li>"
        for flip in side.flips
    )
    return (
        f"<details{' open' if side.wrong else ''}><summary>{label} {escape(side.name)}: {len(side.pieces)} pieces"
        f"</summary>\n<p>Own error in multiples of a piece's own noise; beyond {OP_LIMIT:g} it is wrong.</p>\n"
        '<div class="scroll"><table>\n<tr><th>piece</th><th>drift</th><th>noise</th><th>own</th><th>router agrees</th>'
        f"<th></th></tr>\n{rows}\n</table></div>\n"
        + (f"<p>Tokens that went to other experts than the oracle's:</p><ul>{flips}</ul>\n" if flips else "")
        + "</details>"
    )


def _cells(piece: Piece) -> tuple[str, ...]:
    agreement = "" if piece.agreement is None else f"{piece.agreement:.1%}"
    return piece.scope, number(piece.drift), number(piece.noise), own(piece), agreement, piece.finding
