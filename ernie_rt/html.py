"""Reports as pages that need nothing else: no file from elsewhere, readable in light and in dark."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import Final

from ernie_rt import files

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


def write_page(path: Path, title: str, *sections: str, style: str = "", script: str = "") -> None:
    """Write sections of HTML as one page; WriteError when that fails, and then `path` is as it was."""
    with files.write_atomic(path) as file:
        file.write(page(title, *sections, style=style, script=script).encode("utf-8", "replace"))


def page(title: str, *sections: str, style: str = "", script: str = "") -> str:
    """A page with these styles beside those of all pages, and one script; a browser runs and loads no other."""
    style = STYLE + style
    policy = f"default-src 'none'; style-src-elem {_digest(style)}; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src {_digest(script)}"
        script = f"<script>{script}</script>\n"
    else:
        policy += "; style-src-attr 'unsafe-inline'"  # where nothing runs, charts may place their labels
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"{script}</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
