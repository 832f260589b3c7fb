"""What people read: sizes, counts, columns, and text that steers no terminal."""

from __future__ import annotations

from collections.abc import Sequence


def human_bytes(count: float) -> str:
    """`12.3 GiB`"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_count(count: int) -> str:
    """`21.8 B`, `361 M`: parameters, to three digits."""
    for scale, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return str(count)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as left-aligned columns, the last one as it is."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def printable(text: str) -> str:
    """A stranger's text on one line, with escapes in the place of whatever a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
