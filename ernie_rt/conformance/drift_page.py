"""A comparison of two backends as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from ernie_rt.conformance.chart import drift_chart
from ernie_rt.conformance.drift import Drift, Side
from ernie_rt.conformance.metrics import OP_LIMIT
from ernie_rt.conformance.plot import number, own, split_lines
from ernie_rt.conformance.replay import Piece
from ernie_rt.html import facts, table, verdict


def drift_html(drift: Drift, show: Callable[[int], str] = str, about: Iterable[tuple[str, Any]] = ()) -> str:
    """The verdict, the drift of both sides as a plot, and every piece in a table.

    `show` prints a token; `about` says what was compared, where and when, in names and values.
    """
    split = "" if drift.split is None else f"<pre>{escape(chr(10).join(split_lines(drift, show)))}</pre>\n"
    prompt, answer = len(drift.prompt), drift.compared - len(drift.prompt)
    tables = "\n".join(_table(label, side) for label, side in zip("AB", drift.sides, strict=True))
    return f"""{verdict(drift.verdict != "bug", drift.verdict, drift.reason)}
<h2>Distance from float64, layer by layer</h2>
{drift_chart(drift.sides)}
{split}<h2>What was compared</h2>
{facts([*about, ("tokens", f"{prompt} of prompt, and {answer} of answer that are the same")])}
<h2>How to read it</h2>
<p>Both backends continued the prompt greedily, and every <em>piece</em> of each, which is what it runs in one go, was
judged beside the same model in float64. <em>Drift</em> is how far the values have moved away after a piece,
<em>noise</em> how far rounding alone would move them, measured by running the model once more with every value rounded
as the backend declares. Errors travel, so <em>own</em> is what counts: each piece was given the backend's own inputs,
and what it adds is told in multiples of its own noise. A sound piece has about 1, and one beyond {OP_LIMIT:g} is
wrong. A token whose experts are as good as equal may go to either: its values then jump, and that is no bug.</p>
<h2>Every piece</h2>
{tables}"""


def _table(label: str, side: Side) -> str:
    cells = table(
        ["piece", "drift", "noise", "own", "router agrees", ""],
        [_cells(piece) for piece in side.pieces],
        [piece.wrong for piece in side.pieces],
    )
    flips = "".join(
        f"<li>{escape(flip.scope)}, token {flip.token}: a gap of {flip.gap:.2g}, where scores drifted by "
        f"{flip.noise:.2g}</li>"
        for flip in side.flips
    )
    return (
        f"<details{' open' if side.wrong else ''}><summary>{label} {escape(side.name)}: {len(side.pieces)} pieces"
        f"</summary>\n{cells}\n"
        + (f"<p>Tokens that went to other experts than in float64:</p><ul>{flips}</ul>\n" if flips else "")
        + "</details>"
    )


def _cells(piece: Piece) -> tuple[str, ...]:
    agreement = "" if piece.agreement is None else f"{piece.agreement:.1%}"
    return piece.scope, number(piece.drift), number(piece.noise), own(piece), agreement, piece.finding
