"""Comparisons as a page that needs nothing else: no script, no file from elsewhere, readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from ernie_rt import files
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

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fff; --faint: #d8d8dc; --dim: #6b6b70;
  --a: #1f6feb; --b: #c2570c; --bad: #c62828; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --paper: #16161a; --faint: #37373d; --dim: #9c9ca3;
  --a: #6cb0ff; --b: #f0a35e; --bad: #ff7b72; --good: #7ee08a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--dim); }
.grid { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2; } .noise { stroke-dasharray: 5 4; stroke-width: 1.5; opacity: .75; }
.a { stroke: var(--a); } .b { stroke: var(--b); } .dot.a { fill: var(--a); } .dot.b { fill: var(--b); }
.dot { stroke: none; } .dot.bad { fill: var(--bad); stroke: var(--paper); stroke-width: 1.5; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid var(--faint);
  vertical-align: top; }
th { color: var(--dim); font-weight: 600; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.bad td, .verdict.bug, .failed { color: var(--bad); } .verdict { font-weight: 600; }
.verdict.same, .verdict.tie, .passed { color: var(--good); } .key { color: var(--dim); }
.key.a { color: var(--a); } .key.b { color: var(--b); }
"""


def write_page(path: Path, title: str, *sections: str) -> None:
    """Write sections of HTML as one page; WriteError when that fails, and then `path` is as it was."""
    with files.write_atomic(path) as file:
        file.write(page(title, *sections).encode("utf-8", "replace"))


def page(title: str, *sections: str) -> str:
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        "</body>\n</html>\n"
    )


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
