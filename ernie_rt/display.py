"""What people read: sizes, counts, columns, and text that steers no terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from textwrap import wrap

LINES_BESIDE = 3
"""About how many lines a last column may take beside the others; where it would take more it goes below."""


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


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`Did you mean 'demo'? `: the names that come near to what was given, or nothing."""
    return nearest(given.casefold(), {name.casefold(): name for name in known})


def nearest(given: str, names: Mapping[str, str]) -> str:
    """The same, of names by what they are compared as."""
    close = [repr(names[each]) for each in get_close_matches(given, names)]
    return f"Did you mean {' or '.join(close)}? " if close else ""


def columns(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows as left-aligned columns; in lines of this width, the last column goes on below itself, or below its row."""
    *widths, longest = (max(map(len, cells)) for cells in zip(*rows, strict=True))
    place = sum(each + 2 for each in widths)
    if width is None or place + longest <= width:
        return "\n".join("  ".join([*map(str.ljust, cells, widths), last]).rstrip() for *cells, last in rows)
    word = max((len(word) for *_, last in rows for word in last.split()), default=0)
    beside = place + word <= width and longest <= LINES_BESIDE * (width - place)
    indent = " " * (place if beside else 4)
    lines: list[str] = []
    for *cells, last in rows:
        begin = "  ".join(map(str.ljust, cells, widths))
        wrapped = wrap(last, max(width - len(indent), word), break_on_hyphens=False) if last else []
        if beside:
            begin = "  ".join([begin, *wrapped[:1]])
            del wrapped[:1]
        lines += [begin.rstrip(), *(indent + line for line in wrapped)]
    return "\n".join(lines)


def listed(names: Collection[str], show: int = 4) -> str:
    """The count and the first few of some names, for an error: `6: 'a', 'b', 'c', 'd', …`."""
    first = ", ".join(repr(name if len(name) <= 100 else f"{name[:99]}…") for name in sorted(names)[:show])
    return f"{len(names)}: {first}{', …' if len(names) > show else ''}"


def shown(value: object) -> str:
    """A value that somebody gave, as an error repeats it: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list):
        return f"a list of {len(value)} entries"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    try:
        text = repr(value)
    except ValueError:  # a number in it is too long to print
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def printable(text: str) -> str:
    """A stranger's text on one line, with escapes in the place of whatever a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
