"""`ernie-rt backends`: what can run a model here."""

from __future__ import annotations

import json
import sys
from typing import Any

from ernie_rt.cli.options import Json


def backends(as_json: Json = False) -> None:
    """List the backends, and what those that cannot be used lack. Imports none of them."""
    from ernie_rt.choice import PREFERENCE
    from ernie_rt.cli.output import columns, write
    from ernie_rt.host import PluginHost

    host = PluginHost()
    order = {name: place for place, name in enumerate(PREFERENCE)}
    found: list[dict[str, Any]] = []
    for name in sorted(host.backends, key=lambda name: (order.get(name, len(order)), name)):
        info = host.backends[name]
        lack = host.missing(name)
        found.append(
            {
                "name": name,
                "usable": lack is None,
                "status": "usable" if lack is None else f"{lack}: {info.hint}" if info.hint else lack,
                "dtypes": {kind: list(dtypes) for kind, dtypes in info.dtypes.items()},
                "summary": info.summary,
            }
        )
    for failure in host.failures:
        print(f"plugin {failure.plugin} failed: {failure.cause}", file=sys.stderr)
    if as_json:
        write(json.dumps(found, indent=2) + "\n")
        return
    rows = [[row["name"], row["status"], ", ".join(row["dtypes"]), row["summary"]] for row in found]
    write(columns([["NAME", "STATUS", "DEVICES", "SUMMARY"], *rows]) + "\n")
