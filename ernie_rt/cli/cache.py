"""`ernie-rt cache`: the quantised models that are kept, and getting rid of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ernie_rt.cli.options import Json
from ernie_rt.errors import OptionError, WriteError

if TYPE_CHECKING:
    from ernie_rt.weights.cache import Entry

app = typer.Typer(invoke_without_command=True)

SECONDS: Final = {"h": 3600, "d": 86400, "w": 604800}


@app.callback()
def cache(context: typer.Context, as_json: Json = False) -> None:
    """List the quantised models that are kept, or remove some.

    They are those of `--weights`, the last used first.
    """
    if context.invoked_subcommand is not None:
        return
    from ernie_rt.cli.output import table, write
    from ernie_rt.display import human_bytes, printable
    from ernie_rt.weights.cache import cache_folder, entries

    folder, found = cache_folder(), entries()
    total = sum(entry.nbytes for entry in found)
    if as_json:
        shown = {"folder": str(folder), "nbytes": total, "entries": [_facts(entry) for entry in found]}
        write(json.dumps(shown, indent=2) + "\n")
        return
    rows = [
        [
            printable(entry.model) or "-",
            printable(entry.weights) or "-",
            human_bytes(entry.nbytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
            entry.id if entry.whole else f"{entry.id} (unfinished)",
        ]
        for entry in found
    ]
    if rows:
        table([["MODEL", "WEIGHTS", "SIZE", "LAST USED", "ID"], *rows])
    write(f"{human_bytes(total)} in {folder}\n")


@app.command()
def remove(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Models, or ids of entries.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Those not used for so long: 12h, 30d, 8w.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Those used longest ago, until the others fit: 20GiB.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove quantised models.

    What another process is loading or writing stays, and makes exit code 1.
    """
    from ernie_rt.cli.output import parse_size, say, write
    from ernie_rt.display import human_bytes, printable
    from ernie_rt.weights import cache

    if sum(map(bool, (names, everything, older_than, keep))) != 1:
        raise OptionError("say what to remove", expected="exactly one of NAME, --all, --older-than, --keep")
    found = cache.entries()
    if names:
        chosen = _named(found, names)
    elif older_than:
        oldest = time.time() - parse_age(older_than)
        chosen = [entry for entry in found if entry.used < oldest]
    else:
        chosen = _beyond(found, parse_size(keep)) if keep else found
    gone: list[Entry] = []
    for entry in chosen:
        try:
            cache.remove(entry)
        except WriteError as error:
            say(printable(str(error)))
        else:
            gone.append(entry)
    if as_json:
        write(json.dumps({"removed": [_facts(entry) for entry in gone]}, indent=2) + "\n")
    else:
        for entry in gone:
            what = " ".join(filter(None, (entry.model, entry.weights, entry.id)))
            write(f"removed {printable(what)}, {human_bytes(entry.nbytes)}\n")
        if not chosen:
            write("nothing to remove\n")
    if len(gone) < len(chosen):
        raise typer.Exit(1)


def _named(found: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """The entries of these models or ids; OptionError for a name that nothing has."""
    chosen = []
    for name in names:
        is_id = re.fullmatch("[0-9a-f]{8,32}", name)
        mine = [entry for entry in found if name == entry.model or (is_id and entry.path.name.startswith(name))]
        if not mine:
            hint = "See `ernie-rt cache`"
            raise OptionError("nothing of this name is in the cache", found=ascii(name[:80]), hint=hint)
        chosen += [entry for entry in mine if entry not in chosen]
    return chosen


def _beyond(found: Sequence[Entry], limit: int) -> list[Entry]:
    """Those that are left, the last used first, when so many bytes are full."""
    sizes = accumulate(entry.nbytes for entry in found)
    return [entry for entry, size in zip(found, sizes, strict=True) if size > limit]


def parse_age(text: str) -> float:
    """`12h`, `30d`, `8w` in seconds; OptionError otherwise."""
    match = re.fullmatch(r"(\d{1,6})([hdw])", text.strip().lower())
    if match is None:
        raise OptionError("not an age", expected="hours, days or weeks: 12h, 30d, 8w", found=repr(text[:40]))
    return float(match[1]) * SECONDS[match[2]]


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "path": str(entry.path),
        "model": entry.model,
        "weights": entry.weights,
        "nbytes": entry.nbytes,
        "used": entry.used,
        "whole": entry.whole,
    }
