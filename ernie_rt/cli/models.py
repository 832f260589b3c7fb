"""`ernie-rt models`: the known family."""

from __future__ import annotations

import json
from typing import Any

from ernie_rt.cli.options import Json


def models(as_json: Json = False) -> None:
    """List the known models with their figures."""
    from ernie_rt.cli.output import columns, human_count, write
    from ernie_rt.graph.cost import active_parameters, parameters
    from ernie_rt.model.ernie45 import build_graph
    from ernie_rt.model.families import FAMILIES

    found: list[dict[str, Any]] = []
    for family in FAMILIES:
        graph, config = build_graph(family.config), family.config
        found.append(
            {
                "name": family.name,
                "hub_id": family.hub_id,
                "summary": family.summary,
                "parameters": parameters(graph),
                "active_parameters": active_parameters(graph),
                "num_hidden_layers": config.num_hidden_layers,
                "hidden_size": config.hidden_size,
                "max_position_embeddings": config.max_position_embeddings,
                "kv_bytes_per_token": sum(state.type.nbytes({"R": 1}) for state in graph.states),
            }
        )
    if as_json:
        write(json.dumps(found, indent=2) + "\n")
        return
    header = ["NAME", "PARAMETERS", "ACTIVE", "LAYERS", "HIDDEN", "CONTEXT", "KV BYTES/TOKEN", "HUB ID"]
    keys = ["num_hidden_layers", "hidden_size", "max_position_embeddings", "kv_bytes_per_token", "hub_id"]
    rows = [
        [row["name"], human_count(row["parameters"]), human_count(row["active_parameters"])]
        + [str(row[key]) for key in keys]
        for row in found
    ]
    write(columns([header, *rows]) + "\n")
