"""A routing map as a page: the map, figures of each layer and, of one text, tokens that point to their experts."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from ernie_rt.display import printable
from ernie_rt.html import embedded, page, write_page
from ernie_rt.routing.data import Balance, ExpertLoad, Routes
from ernie_rt.routing.report import Report
from ernie_rt.routing.svg import LEFT, STYLE, TOP, grid_of, inline

MOST_TOKENS: Final = 2048
"""How many tokens a page shows: with 27 layers of 6 experts they take 4 MB."""

COLOURING: Final = """<form id="colouring">
<label for="shown-router">Experts of</label> <select id="shown-router"></select>
<label for="shown-by">coloured by</label>
<select id="shown-by"><option value="expert">the one with the largest weight</option>
<option value="entropy">how evenly the weights are spread (entropy)</option>
<option value="none">nothing</option></select>
</form>
<p class="note">A square is a token, of 28 by 28 pixels. Those of one colour go to the same expert first; by entropy,
the stronger the colour, the more evenly a token's weights are spread over its experts. Point at a square to see
them.</p>"""

FIGURES: Final = """<h2>Figures</h2>
{}
<p class="note">Entropy is over its maximum: 1 where all experts have the same to do. CV is the standard deviation of
the experts' tokens over their mean; largest, the busiest expert's share of all tokens, and how many times the mean that
is. By bias: the share of tokens that would go to other experts if there were no correction bias, and the CV that this
would have.</p>"""


def routing_html(report: Report) -> str:
    title, sections, style, script = _parts(report)
    return page(title, *sections, style=style, script=script, images=bool(report.pictures))


def write_html(path: Path, report: Report) -> None:
    """Write the map as a page; WriteError when that fails, and then `path` is as it was."""
    title, sections, style, script = _parts(report)
    write_page(path, title, *sections, style=style, script=script, images=bool(report.pictures))


def _parts(report: Report) -> tuple[str, list[str], str, str]:
    assets = files(__package__)
    sections = [
        f"<p>{escape(report.about)}</p>",
        f'<div class="map-scroll">{inline(report)}</div>\n<p id="said" aria-live="polite"></p>',
        *_pictures(report),
        *_strip(report),
        FIGURES.format(_table([_figures(load) for load in report.load.routers])),
        embedded(_data(report)),
    ]
    style = STYLE + assets.joinpath("page.css").read_text("utf-8")
    return (
        f"Where tokens go in {printable(report.model)}",
        sections,
        style,
        assets.joinpath("page.js").read_text("utf-8"),
    )


def _pictures(report: Report) -> list[str]:
    """Each picture, and frame of a video, with a place for its tokens, and what they may be coloured by."""
    if not report.pictures:
        return []
    figures = "\n".join(
        f"<figure>{''.join(picture.svgs())}<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in report.pictures
    )
    return ["<h2>Pictures</h2>", COLOURING, f'<div class="pictures">{figures}</div>']


def _strip(report: Report) -> list[str]:
    """The tokens of one text, and a table for the experts of the one that is pointed at."""
    pieces = report.pieces[:MOST_TOKENS]
    if not pieces:
        return ['<p class="note">Point at a cell of the map to see what its expert had to do.</p>']
    tokens = "".join(
        f'<span role="button" tabindex="{-1 if place else 0}" data-text="{escape(piece)}">{escape(_seen(piece))}</span>'
        for place, piece in enumerate(pieces)
    )
    more = len(report.pieces) - len(pieces)
    note = f" The map counts {more:,} more tokens, which are not shown here." if more else ""
    return [
        '<p class="note">Point at a token, or go through them with the arrow keys, to see its experts and their '
        "weights; at a cell of the map, to see which tokens its expert had. "
        f'7 <span class="bias">for 3</span>: expert 7, where it would be 3 without the correction bias.{note}</p>',
        f'<p class="strip">{tokens}</p>',
        '<div class="scroll"><table class="routes"><tbody></tbody></table></div>',
        '<noscript><p class="bad">The experts of each token are shown by a script, which is turned off.</p></noscript>',
    ]


def _seen(piece: str) -> str:
    return piece.replace("\n", "↵\n") or "∅"


def _figures(load: ExpertLoad) -> list[str]:
    if not load.tokens:
        return [load.name, *"-----", "no token"]
    balance = load.balance
    bias = ["-", "-"]
    if load.unbiased is not None:
        bias = [f"{load.moved_share:.1%}", f"{Balance.of(load.unbiased).variation:.2f}"]
    return [
        load.name,
        f"{balance.entropy:.3f}",
        f"{balance.variation:.2f}",
        f"{load.shares.max():.1%} ({balance.peak:.1f}x), expert {load.counts.argmax()}",
        *bias,
        ", ".join(map(str, load.unused.tolist())),
    ]


def _table(rows: list[list[str]]) -> str:
    header = ["", "entropy", "CV", "largest", "by bias", "CV without", "never used"]
    lines = [
        f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
        for tag, cells in (("th", header), *(("td", row) for row in rows))
    ]
    return f'<div class="scroll"><table>\n{chr(10).join(lines)}\n</table></div>'


def _data(report: Report) -> dict[str, Any]:
    grid, routing = grid_of(report), report.routing
    of_tokens: list[dict[str, Any]] = [{} for _ in report.load.routers]
    if routing is not None:
        of_tokens = [_routes(routes, min(len(routing.ids), MOST_TOKENS)) for routes in routing.routers]
    return {
        "grid": {"left": LEFT, "top": TOP, "pitch": grid.pitch, "cell": grid.cell},
        "routers": [
            {"name": load.name, "tokens": load.tokens, "counts": load.counts.tolist(), **routes}
            for load, routes in zip(report.load.routers, of_tokens, strict=True)
        ],
    }


def _routes(routes: Routes, tokens: int) -> dict[str, Any]:
    """A token's experts (none where another pool serves it), their weights in thousandths, and in whose place the
    correction bias brought them, or -1."""
    ids = [row if max(row) >= 0 else [] for row in routes.ids[:tokens].tolist()]
    displaced = map(routes.displaced, range(tokens))
    instead = [[others.get(id, -1) for id in row] for row, others in zip(ids, displaced, strict=True)]
    weights = np.rint(1000 * routes.weights[:tokens].astype(np.float64)).astype(int).tolist()
    return {"experts": ids, "weights": weights, "instead": instead}
