"""A routing map as text for a terminal: bars that can be read without colour, figures, and each token's experts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from textwrap import fill
from typing import Final
from unicodedata import combining, east_asian_width

from ernie_rt.display import columns, printable
from ernie_rt.routing.data import VISION, Balance, ExpertLoad, Routes
from ernie_rt.routing.report import Report
from ernie_rt.routing.svg import level_of

BARS: Final = "·▁▂▃▄▅▆▇█"
"""By level; the first stands for an expert that was never used."""
LABEL: Final = len("vision 12 ")
WIDEST: Final = 4
"""Characters that an expert has at most."""
MOST_UNUSED: Final = 20
"""Characters of a list of experts in a line of figures."""
PLENTY: Final = 100
"""The width that a map takes where nothing bounds it."""
MOST_TOKENS: Final = 40
"""How many tokens a terminal is shown when no layers are named."""

Paint = Callable[[str, int], str]
"""Gives a text the colour of a level, 0 to 8."""


def routing_text(
    report: Report,
    *,
    width: int | None = None,
    paint: Paint = lambda text, level: text,
    layers: Collection[int] = (),
) -> str:
    """The map, a line of figures for each layer and, of one text, every token's experts with their weights.

    In a terminal of some `width` that is of as many layers as have room, and of no more tokens than are easily read;
    of these `layers` it is all there is. What is left out is said.
    """
    blocks = [_prose(report.about, width), _map(report, width or PLENTY, paint), columns(_figures(report, width))]
    if report.routing is not None:
        blocks.append(_tokens(report, width, layers))
    return "\n\n".join(blocks) + "\n"


def _map(report: Report, width: int, paint: Paint) -> str:
    experts = max(len(load.counts) for load in report.load.routers)
    room = max(width - LABEL, 1)
    cell = min(max(room // experts, 1), WIDEST)
    band = room // cell
    lines: list[str] = []
    for start in range(0, experts, band):
        lines.append(f"{'expert':{LABEL}}{_ruler(start, min(start + band, experts), cell)}")
        for load in report.load.routers:
            shares = load.shares[start : start + band].tolist()
            bars = "".join(_bar(level_of(share, report.largest), cell, paint) for share in shares)
            lines.append(f"{load.name:<{LABEL}}{bars}".rstrip())
    first = next((load for load in report.load.routers if load.tokens), report.load.routers[0])
    even = first.counts.sum() / max(first.tokens, 1) / len(first.counts)
    scale = f"▁ to █: up to {report.largest:.0%} of tokens; all alike would be {even:.1%}; ·: never"
    return "\n".join([*lines, _prose(scale, width, " " * LABEL)])


def _ruler(start: int, stop: int, cell: int) -> str:
    """The numbers of experts above their bars, as many as have room."""
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if step * cell > len(str(stop)))
    text = ""
    for expert in range(start, stop):
        if expert % every == 0:
            text = text.ljust((expert - start) * cell) + str(expert)
    return text


def _bar(level: int, cell: int, paint: Paint) -> str:
    wide = 1 if level == 0 else max(cell - 1, 1)
    return paint(BARS[level] * wide, level) + " " * (cell - wide)


def _figures(report: Report, width: int | None) -> list[list[str]]:
    rows = [["", "ENTROPY", "CV", "LARGEST", "BY BIAS", "CV WITHOUT", "NEVER USED"]]
    for load in report.load.routers:
        if not load.tokens:
            rows.append([load.name, *"-----", "no token"])
            continue
        balance = load.balance
        largest = f"{load.shares.max():.0%} ({balance.peak:.1f}x) to {load.counts.argmax()}"
        rows.append(
            [load.name, f"{balance.entropy:.2f}", f"{balance.variation:.2f}", largest, *_bias(load),
             _unused(load, width)]
        )  # fmt: skip
    return rows


def _unused(load: ExpertLoad, width: int | None) -> str:
    """The experts that were never used; in a terminal, whose map shows which, only how many when they are many."""
    ids = ", ".join(map(str, load.unused.tolist()))
    return ids if width is None or len(ids) <= MOST_UNUSED else f"{len(load.unused)} of {len(load.counts)}"


def _bias(load: ExpertLoad) -> tuple[str, str]:
    if load.unbiased is None:
        return "-", "-"
    return f"{load.moved_share:.0%}", f"{Balance.of(load.unbiased).variation:.2f}"


def _tokens(report: Report, width: int | None, layers: Collection[int]) -> str:
    routing = report.routing
    assert routing is not None
    found: dict[int, list[Routes]] = {}
    for routes in routing.routers:
        if not layers or routes.layer in layers:
            found.setdefault(routes.layer, []).append(routes)
    total = len(routing.ids)
    shown = total if width is None or layers else min(total, MOST_TOKENS)
    digits = len(str(shown - 1))
    names = [
        f"{place:{digits}} {printable(json.dumps(piece, ensure_ascii=False))}"
        for place, piece in enumerate(report.pieces[:shown])
    ]
    widest = max(map(_width, names))
    lines = [name + " " * (widest - _width(name)) for name in names]
    head = "token".ljust(widest)
    drawn = 0
    for layer, pools in found.items():
        entries = [_entries(pools, place) for place in range(shown)]
        widths = [max(map(len, column)) for column in zip(*entries, strict=True)]
        block = ["  ".join(map(str.ljust, row, widths)) for row in entries]
        title = f"layer {layer}"
        wide = max(len(block[0]), len(title))
        if width is not None and not layers and drawn and _width(head) + 4 + wide > width:
            break
        head += "    " + title.ljust(wide)
        lines = [f"{line}    {part:{wide}}" for line, part in zip(lines, block, strict=True)]
        drawn += 1
    lines = [head, *lines]
    numbers = list(found)
    all_drawn = [routes for layer in numbers[:drawn] for routes in found[layer]]
    if any(routes.pool == VISION and (routes.ids[:shown] >= 0).any() for routes in all_drawn):
        lines.append(_prose("v3: expert 3 of those for pictures and videos", width))
    if any(routes.by_bias.any() for routes in all_drawn):
        lines.append(_prose("3/5: expert 3, and 5 in its place if there were no correction bias", width))
    left = [f"{total - shown:,} more tokens"] if shown < total else []
    if drawn < len(numbers):
        left.append(f"layers {numbers[drawn]} to {numbers[-1]}")
    if left:
        lines.append(_prose(f"not shown: {', '.join(left)}; --layer, --html and --json show them", width))
    return "\n".join(line.rstrip() for line in lines)


def _entries(pools: Sequence[Routes], place: int) -> list[str]:
    """Each of a token's experts with its weight; one that came by the bias with that which it came in place of.

    They are of the pool that serves it, and marked where that is the one for pictures.
    """
    routes = next((routes for routes in pools if routes.serves(place)), pools[0])
    mark = "v" if routes.pool == VISION else ""
    ids, weights = routes.ids[place].tolist(), routes.weights[place].tolist()
    others = routes.displaced(place)
    return [
        "-" if id < 0 else f"{mark}{id}{f'/{others[id]}' if id in others else ''} {weight:.2f}".replace(" 0.", " .")
        for id, weight in zip(ids, weights, strict=True)
    ]


def _prose(text: str, width: int | None, indent: str = "") -> str:
    if width is None:
        return indent + text
    return fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _width(text: str) -> int:
    """How many columns a terminal takes for a text."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
