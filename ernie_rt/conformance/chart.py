"""The drift plot: how far a backend's values lie from float64, layer by layer.

Lines lie in an SVG that stretches to whatever room there is; labels are text beside it, of the size of other text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from ernie_rt.conformance.drift import Side
from ernie_rt.conformance.plot import FLOOR, Layer, layers, number, own
from ernie_rt.conformance.replay import Piece

SIZE: Final = 1000
"""Width and height, in units of the SVG."""
LABELS: Final = 16
"""About how many layers are named below the plot, and on a phone."""
LABELS_ON_A_PHONE: Final = 6


def drift_chart(sides: Sequence[Side]) -> str:
    """One side or two, with their names and what the lines mean below."""
    grouped = [layers(side) for side in sides]
    names = list(dict.fromkeys(layer.name for side in grouped for layer in side))
    drawn = [value for side in sides for p in side.pieces for value in (_height(p.drift), _height(p.noise)) if value]
    low = math.floor(math.log10(max(min(drawn, default=FLOOR), FLOOR)))
    high = max(math.ceil(math.log10(max(drawn, default=1.0))), low + 1)

    def x(place: float) -> float:
        return SIZE * place / len(names)

    def y(value: float) -> float:
        return SIZE * (1 - max((math.log10(value) - low) / (high - low), 0.0))

    labels, parts = [], [f'<svg viewBox="0 0 {SIZE} {SIZE}" preserveAspectRatio="none">']
    for power in range(low, high + 1):
        line = f"{y(10.0**power):.1f}"
        parts.append(f'<line class="grid" x1="0" x2="{SIZE}" y1="{line}" y2="{line}"/>')
        labels.append(f'<span class="y" style="bottom: {100 * (power - low) / (high - low):.1f}%">1e{power}</span>')
    some = _named(range(len(names)), LABELS)
    few = _named(some, LABELS_ON_A_PHONE)
    for place, name in enumerate(names):
        parts.append(f'<line class="grid" x1="{x(place):.1f}" x2="{x(place):.1f}" y1="0" y2="{SIZE}"/>')
        if place in some:
            kind = "x" if place in few else "x wide"
            left, label = 100 * (place + 0.5) / len(names), escape(name.removeprefix("layers."))
            labels.append(f'<span class="{kind}" style="left: {left:.1f}%">{label}</span>')
    labels.append('<span class="title">layer</span>')
    for key, side in zip("ab", grouped, strict=False):
        places = list(_places(side, names))
        for kind in ("noise", "drift"):
            heights = [(place, _height(piece.noise if kind == "noise" else piece.drift)) for place, piece in places]
            points = " ".join(f"{x(place):.1f},{y(height):.1f}" for place, height in heights if height)
            parts.append(f'<polyline class="line {kind} {key}" points="{points}"/>')
        parts += [_dot(key, piece, x(place), y, high) for place, piece in places]
    plot = "\n".join([*parts, "</svg>", *labels])
    return f'<figure class="chart"><div class="plot">\n{plot}\n</div>\n{_keys(sides)}</figure>'


def _keys(sides: Sequence[Side]) -> str:
    letters = ("A ", "B ") if len(sides) > 1 else ("",)
    names = " · ".join(
        f'<span class="key {key}">{letter}{escape(side.name)}</span>'
        for key, letter, side in zip("ab", letters, sides, strict=False)
    )
    return (
        f"<figcaption>{names}. Solid: the distance from float64, the rms of the error over the rms of the values. "
        "Dashed: what rounding alone brings. Large and red: a piece that is wrong by itself.</figcaption>"
    )


def _named(places: Sequence[int], most: int) -> Sequence[int]:
    """Of places in a row about `most`, evenly, and the last."""
    every = -(-len(places) // most)
    return [*places[: len(places) - every : every], places[-1]]


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
    said = f"{key.upper()} {piece.scope}: drift {number(piece.drift)}, noise {number(piece.noise)}, own {own(piece)}"
    said += f"; {piece.finding}" if piece.finding else ""
    shape = "dot bad" if piece.wrong else f"dot {key}"
    # A line of no length has round ends, and stays round however the plot is stretched.
    return f'<path class="{shape}" d="M{x:.1f} {height:.1f}h0"><title>{escape(said)}</title></path>'


def _height(value: float | None) -> float:
    """What has a place on an axis of logarithms; 0 for what has none."""
    return value if value is not None and 0 < value < math.inf else 0.0
