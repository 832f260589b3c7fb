"""The heat map of a routing as an SVG: a row for each router, a column for each expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from ernie_rt import writing
from ernie_rt.routing.data import ExpertLoad
from ernie_rt.routing.report import Report

LEVELS: Final = 8
"""Shades of a cell that was used."""
LEFT: Final = 62
TOP: Final = 22
RIGHT: Final = 152
FOOT: Final = 26
"""Room around the cells, in SVG units: for layers, experts, figures and what shades mean."""
CHARACTER: Final = 6.2
"""About how wide one is."""

STYLE: Final = "".join(
    (
        ".map text { font: 11px system-ui, sans-serif; fill: var(--dim); } .map .end { text-anchor: end; }",
        " .map .middle { text-anchor: middle; } .map path { fill: var(--a); }",
        *(f" .map .l{level} {{ fill-opacity: {level / LEVELS:.3f}; }}" for level in range(1, LEVELS + 1)),
        " .map .never { fill: none; stroke: var(--bad); stroke-width: 1.2; stroke-opacity: .8; }\n",
    )
)
ALONE: Final = """:root { --ink: #1c1c1e; --paper: #fff; --dim: #63636a; --a: #1f6feb; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --paper: #16161a; --dim: #a2a2aa; --a: #6cb0ff;
  --bad: #ff7b72; } }
.paper { fill: var(--paper); } .title { font: 600 12px system-ui, sans-serif; fill: var(--ink); }
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the cells of a map lie: in squares of `pitch` SVG units, of which a cell leaves a part free."""

    rows: int
    columns: int

    @property
    def pitch(self) -> int:
        return 24 if self.columns <= 24 else 16 if self.columns <= 64 else 9

    @property
    def cell(self) -> int:
        return self.pitch - max(1, self.pitch // 8)

    @property
    def width(self) -> int:
        return LEFT + max(self.columns * self.pitch, 200) + RIGHT

    @property
    def height(self) -> int:
        return TOP + self.rows * self.pitch + FOOT

    def x(self, column: int) -> int:
        return LEFT + column * self.pitch

    def y(self, row: int) -> int:
        return TOP + row * self.pitch


def grid_of(report: Report) -> Grid:
    return Grid(len(report.load.routers), max(len(load.counts) for load in report.load.routers))


def level_of(share: float, largest: float) -> int:
    """The shade of a cell: 0 for none, up to LEVELS for the largest share."""
    return math.ceil(share / largest * LEVELS - 1e-9) if share > 0 else 0


def write_svg(path: Path, report: Report) -> None:
    """Write the map as a picture by itself; WriteError when that fails, and then `path` is as it was."""
    with writing.write_atomic(path) as file:
        file.write(svg(report).encode("utf-8", "replace"))


def svg(report: Report) -> str:
    """The map as a picture by itself, in light and in dark."""
    grid = grid_of(report)
    head = 24
    width = max(grid.width, round(len(report.about) * 1.15 * CHARACTER) + 16)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-head} {width} {grid.height + head}" '
        f'width="{width}" height="{grid.height + head}" role="img" aria-label="{escape(_said(report))}">\n'
        f"<style>{ALONE}{STYLE}</style>\n"
        f'<rect class="paper" y="{-head}" width="{width}" height="{grid.height + head}"/>\n'
        f'<text class="title" x="8" y="-6">{escape(report.about)}</text>\n{cells(report)}\n</svg>\n'
    )


def inline(report: Report) -> str:
    """The map for a page, which has the style."""
    grid = grid_of(report)
    return (
        f'<svg viewBox="0 0 {grid.width} {grid.height}" width="{grid.width}" height="{grid.height}" role="img" '
        f'aria-label="{escape(_said(report))}">\n{cells(report)}\n</svg>'
    )


def cells(report: Report) -> str:
    """The cells, a path for each shade, with names of layers and experts around them."""
    grid, largest = grid_of(report), report.largest
    shades: dict[int, list[str]] = {level: [] for level in range(LEVELS + 1)}
    texts = [f'<text class="end" x="{LEFT - 8}" y="{TOP - 8}">expert</text>']
    every = math.ceil((len(str(grid.columns)) + 1) * CHARACTER / grid.pitch)
    numbered = range(0, grid.columns, every)
    texts += [_text("middle", grid.x(expert) + grid.cell / 2, TOP - 8, str(expert)) for expert in numbered]
    right = grid.x(0) + max(grid.columns * grid.pitch, 200) + 4
    for row, load in enumerate(report.load.routers):
        middle = grid.y(row) + grid.cell / 2 + 4
        texts.append(_text("end", LEFT - 8, middle, load.name))
        texts.append(_text("", right, middle, _figures(load)))
        for expert, share in enumerate(load.shares.tolist()):
            level = level_of(share, largest)
            shades[level].append(_cross(grid, row, expert) if level == 0 else _square(grid, row, expert))
    paths = [
        f'<path class="{"never" if level == 0 else f"l{level}"}" d="{"".join(parts)}"/>'
        for level, parts in shades.items()
        if parts
    ]
    return "\n".join(['<g class="map">', *paths, *texts, _legend(grid, largest), "</g>"])


def _square(grid: Grid, row: int, expert: int) -> str:
    return f"M{grid.x(expert)} {grid.y(row)}h{grid.cell}v{grid.cell}h-{grid.cell}z"


def _cross(grid: Grid, row: int, expert: int) -> str:
    arm = max(2, grid.cell // 4)
    x, y = grid.x(expert) + (grid.cell - arm) // 2, grid.y(row) + (grid.cell - arm) // 2
    return f"M{x} {y}l{arm} {arm}m0 -{arm}l-{arm} {arm}"


def _figures(load: ExpertLoad) -> str:
    if not load.tokens:
        return "no token"
    said = f"CV {load.balance.variation:.2f}"
    return said if load.unbiased is None else f"{said} · bias moves {load.moved_share:.0%}"


def _legend(grid: Grid, largest: float) -> str:
    y = grid.height - 16
    parts = [f'<path class="l{level}" d="M{LEFT + 14 * (level - 1)} {y}h12v8h-12z"/>' for level in range(1, LEVELS + 1)]
    parts.append(_text("", LEFT + 14 * LEVELS + 4, y + 8, f"up to {largest:.0%} of tokens"))
    x = LEFT + 14 * LEVELS + 132
    parts.append(f'<path class="never" d="M{x} {y + 1}l6 6m0 -6l-6 6"/>{_text("", x + 12, y + 8, "never")}')
    return "".join(parts)


def _text(kind: str, x: float, y: float, text: str) -> str:
    mark = f' class="{kind}"' if kind else ""
    return f'<text{mark} x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _said(report: Report) -> str:
    return f"Which share of tokens each expert has, layer by layer; {report.about}"
