"""`ernie-rt backends`: what can run a model here, and how to begin a backend of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ernie_rt.cli.options import Json

app = typer.Typer(invoke_without_command=True)


@app.callback()
def backends(context: typer.Context, as_json: Json = False) -> None:
    """List the backends, and what they lack; or begin a new one.

    Imports none of them, only what announces them.
    """
    if context.invoked_subcommand is not None:
        return
    from ernie_rt.choice import AUTOMATIC, accelerators
    from ernie_rt.cli.output import say, status, table, write
    from ernie_rt.display import printable
    from ernie_rt.host import PluginHost

    host = PluginHost()
    with status() as tell:
        tell("listening to the plugins")
        host.examine()
    kinds = {"cpu", *accelerators()}
    order = {name: place for place, name in enumerate(AUTOMATIC)}
    found: list[dict[str, Any]] = []
    for name in sorted(host.backends, key=lambda name: (order.get(name, len(order)), name)):
        info = host.backends[name]
        lack, hint = host.missing(name), info.hint
        if lack is None and not kinds & info.dtypes.keys():
            lack, hint = f"needs a {' or '.join(info.dtypes)} device, and none is to be seen here", ""
        found.append(
            {
                "name": name,
                "usable": lack is None,
                "status": "usable" if lack is None else f"{lack}: {hint}" if hint else lack,
                "dtypes": {kind: list(dtypes) for kind, dtypes in info.dtypes.items()},
                "summary": info.summary,
                "overlap": host.overlap(name),
            }
        )
    for failure in host.failures:
        say(printable(f"plugin {failure.name}: {failure.status}: {failure.cause}"))
    for row in found:
        if row["overlap"] is not None:
            say(f"backend {row['name']}: {row['overlap']}")
    if as_json:
        write(json.dumps(found, indent=2) + "\n")
        return
    rows = [
        [row["name"], "usable" if row["usable"] else "lacking", ", ".join(row["dtypes"]), row["summary"]]
        for row in found
    ]
    table([["NAME", "STATUS", "DEVICES", "SUMMARY"], *rows])
    write("".join(f"{row['name']} {row['status']}\n" for row in found if not row["usable"]))


@app.command()
def new(name: Annotated[str, typer.Argument(help="What the backend will be called.")]) -> None:
    """Write a backend that works, to begin yours with.

    It is a distribution in a new folder ernie-rt-NAME.
    """
    from ernie_rt.cli.output import say, write
    from ernie_rt.cli.skeleton import render
    from ernie_rt.writing import write_folder

    distribution, contents = render(name)
    write_folder(Path(distribution), contents)
    write("".join(f"{distribution}/{path}\n" for path in contents))
    say(f"next: cd {distribution}; pip install -e '.[test]'; ernie-rt conform {name}")
