"""`ernie-rt plugins`: what is installed, what works, and the command that helps where something does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ernie_rt.cli.options import Json

if TYPE_CHECKING:
    from ernie_rt.discovery.installed import Plugin


def plugins(as_json: Json = False) -> None:
    """List the plugins, and try those of third parties.

    Each of these is imported, and its backend run once, in a child process.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ernie_rt.cli.output import table, write
    from ernie_rt.conformance.trial import attempt
    from ernie_rt.host import PluginHost

    heard = PluginHost().examine()
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda p: attempt(p) if p.status == "ok" and not p.built_in else p, heard))
    if as_json:
        write(json.dumps([_fields(plugin) for plugin in found], indent=2) + "\n")
        return
    rows = [["NAME", "STATUS", "DISTRIBUTION", "API", "IMPORT", "HOOKS"]]
    for plugin in found:
        took = "-" if plugin.seconds is None else f"{1000 * plugin.seconds:.0f} ms"
        api = "-" if plugin.api is None else str(plugin.api)
        rows.append([plugin.name, plugin.status, _source(plugin), api, took, ", ".join(plugin.hooks) or "-"])
    table(rows)
    for plugin in found:
        if plugin.cause is not None:
            remedy = "" if plugin.fix is None else f"\n  {plugin.fix}"
            write(f"{plugin.name} ({_source(plugin)}): {plugin.cause}{remedy}\n")


def _source(plugin: Plugin) -> str:
    return " ".join(part for part in (plugin.distribution, plugin.version) if part is not None) or "-"


def _fields(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
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
