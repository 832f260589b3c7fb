"""What the pages of reports are made of: they need nothing else, no file from elsewhere, and are readable in light and
in dark, on a phone and on paper."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from ernie_rt import writing

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fff; --raised: #f5f5f7; --faint: #d8d8dc; --dim: #63636a;
  --a: #1f6feb; --b: #b34d05; --bad: #c62828; --good: #1d7324; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --paper: #16161a; --raised: #212127; --faint: #3a3a41;
  --dim: #a2a2aa; --a: #6cb0ff; --b: #f0a35e; --bad: #ff7b72; --good: #7ee08a; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --raised: #fff; --faint: #bbb; --dim: #444;
  --a: #0b57d0; --b: #a04000; --bad: #b00020; --good: #145a1a; }
  .plot, article { break-inside: avoid; } details::details-content { display: block; content-visibility: visible; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .5rem 0; max-width: 46rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--dim); }
.grid { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2; } .noise { stroke-dasharray: 5 4; stroke-width: 1.5; opacity: .8; }
.a { stroke: var(--a); } .b { stroke: var(--b); } circle.a { fill: var(--a); } circle.b { fill: var(--b); }
circle.dot { stroke: none; }
.verdict { padding: .7rem 1rem; border-left: .3rem solid var(--dim); background: var(--raised); max-width: none; }
.verdict b { text-transform: capitalize; }
.verdict.good { border-color: var(--good); } .verdict.good b, b.good { color: var(--good); }
.verdict.bad { border-color: var(--bad); } .verdict.bad b, .bad td, b.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--faint); vertical-align: top; }
td:not(:last-child) { white-space: nowrap; }
th { color: var(--dim); font-weight: 600; } pre { white-space: pre-wrap; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .5rem 0; }
dt { color: var(--dim); } dd { margin: 0; white-space: pre-wrap; }
details { margin: .6rem 0; } summary { cursor: pointer; }
.key { color: var(--dim); } .key.a { color: var(--a); } .key.b { color: var(--b); }
.chart { margin: 1rem 0; } .chart figcaption { font-size: .85rem; color: var(--dim); }
.plot { position: relative; height: 22rem; margin: 0 .5rem 2.6rem 3rem; }
.plot svg { position: absolute; width: 100%; height: 100%; overflow: visible; }
.plot svg * { vector-effect: non-scaling-stroke; }
.plot span { position: absolute; font-size: .75rem; line-height: 1; color: var(--dim); white-space: nowrap; }
.plot .y { right: 100%; margin-right: .5rem; transform: translateY(50%); }
.plot .x { top: 100%; margin-top: .5rem; transform: translateX(-50%); }
.plot .title { top: 100%; left: 50%; margin-top: 1.6rem; transform: translateX(-50%); }
.dot { stroke-width: 6; stroke-linecap: round; } .dot.b { stroke-linecap: square; stroke-width: 5; }
.dot.bad { stroke: var(--bad); stroke-width: 14; }
.levels { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
article { background: var(--raised); border: 1px solid var(--faint); border-radius: .4rem; padding: .8rem 1rem; }
article p { font-size: .9rem; } article .counts { font-weight: 600; }
meter { width: 100%; height: .6rem; }
@media (max-width: 40rem) { .plot { height: 17rem; margin-left: 2.6rem; } .wide { display: none; }
  .dot { stroke-width: 4; } .dot.b { stroke-width: 3.5; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
"""


def write_page(path: Path, title: str, *sections: str, style: str = "", script: str = "", images: bool = False) -> None:
    """Write sections of HTML as one page; WriteError when that fails, and then `path` is as it was."""
    with writing.write_atomic(path) as file:
        text = page(title, *sections, style=style, script=script, images=images)
        file.write(text.encode("utf-8", "replace"))


def page(title: str, *sections: str, style: str = "", script: str = "", images: bool = False) -> str:
    """A page with these styles beside those of all pages, and one script; a browser runs and loads no other.

    With `images` it shows pictures that are in it.
    """
    style = STYLE + style
    policy = f"default-src 'none'; style-src-elem {_digest(style)}; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src {_digest(script)}"
        script = f"<script>{script}</script>\n"
    else:
        policy += "; style-src-attr 'unsafe-inline'"  # where nothing runs, charts may place their labels
    policy += "; img-src data:" if images else ""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"{script}</body>\n</html>\n"
    )


def verdict(good: bool, word: str, reason: str) -> str:
    return f'<p class="verdict {"good" if good else "bad"}"><b>{escape(word)}</b>: {escape(reason)}</p>'


def facts(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and what stands for them; a name of nothing (None, or an empty text) is left out."""
    shown = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(figure(value))}</dd>" for name, value in rows if value not in (None, "")
    )
    return f"<dl>\n{shown}\n</dl>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[bool] = ()) -> str:
    """A table, which scrolls by itself where it is too wide; rows that are `bad` stand out."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    marks = [' class="bad"' if each else "" for each in bad] or [""] * len(rows)
    body = "\n".join(
        f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for mark, row in zip(marks, rows, strict=True)
    )
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def figure(value: Any) -> str:
    """`0.123`, `3`, `inf`, or a dash for what has no number."""
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) < 1e9 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def embedded(data: object) -> str:
    """Data for a page's script, as an element that nothing in it can end: `JSON.parse` of what `#data` holds."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{text}</script>'


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
