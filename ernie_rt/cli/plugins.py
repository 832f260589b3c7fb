"""`ernie-rt plugins`: what is installed, what works, and the command that helps where something does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import typer

from ernie_rt.cli.options import Json

if TYPE_CHECKING:
    from ernie_rt.cli.group import Commands
    from ernie_rt.discovery.installed import Plugin


def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the plugins, and try those of third parties.

    Each of these is imported in a child process, and a backend is run once.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ernie_rt.cli import lazy
    from ernie_rt.cli.output import status, table, write
    from ernie_rt.conformance.trial import attempt
    from ernie_rt.host import PluginHost

    with status() as tell, ThreadPoolExecutor() as pool:
        tell("trying the plugins")
        heard = PluginHost().examine()
        found = list(pool.map(lambda p: attempt(p) if p.status == "ok" and not p.built_in else p, heard))
        root = context.find_root()
        found += pool.map(lazy.examine, cast("Commands", root.command).plugins(root))
    if as_json:
        write(json.dumps([_fields(plugin) for plugin in found], indent=2) + "\n")
        return
    rows = [["NAME", "KIND", "STATUS", "DISTRIBUTION", "API", "IMPORT", "HOOKS"]]
    for plugin in found:
        took = "-" if plugin.seconds is None else f"{1000 * plugin.seconds:.0f} ms"
        api = "-" if plugin.api is None else str(plugin.api)
        rows.append([plugin.name, plugin.kind, plugin.status, plugin.source, api, took, ", ".join(plugin.hooks) or "-"])
    table(rows)
    for plugin in found:
        if plugin.cause is not None:
            remedy = "" if plugin.fix is None else f"\n  {plugin.fix}"
            write(f"{plugin.name} ({plugin.source}): {plugin.cause}{remedy}\n")


def _fields(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "kind": plugin.kind,
        "status": plugin.status,
        "built_in": plugin.built_in,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "api": plugin.api,
        "hooks": list(plugin.hooks),
        "backends": [info.name for info in plugin.backends],
        "import_seconds": plugin.seconds,
        "failure": plugin.cause,
        "fix": plugin.fix,
    }
