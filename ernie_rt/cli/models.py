"""`ernie-rt models`: the known models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ernie_rt.cli.options import Json

if TYPE_CHECKING:
    from ernie_rt.modeling.config import ModelConfig


def models(as_json: Json = False) -> None:
    """List the known models with their figures."""
    from ernie_rt.cli.output import write
    from ernie_rt.display import columns, human_count
    from ernie_rt.graph.cost import active_parameters, parameters
    from ernie_rt.modeling.config import read_config
    from ernie_rt.modeling.ernie45 import build_graph
    from ernie_rt.modeling.families import FAMILIES
    from ernie_rt.weights.hub import DEMO

    known: list[tuple[str, ModelConfig, str | None, str]] = [
        (DEMO.name, read_config(DEMO), None, "16 experts, 4 active and 2 shared, comes with ernie-rt"),
        *((family.name, family.config, family.hub_id, family.summary) for family in FAMILIES),
    ]
    found: list[dict[str, Any]] = []
    for name, config, hub_id, summary in known:
        graph = build_graph(config)
        found.append(
            {
                "name": name,
                "hub_id": hub_id,
                "summary": summary,
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
    keys = ["num_hidden_layers", "hidden_size", "max_position_embeddings", "kv_bytes_per_token"]
    rows = [
        [
            row["name"],
            human_count(row["parameters"]),
            human_count(row["active_parameters"]),
            *(str(row[key]) for key in keys),
            row["hub_id"] or "- (comes with ernie-rt)",
        ]
        for row in found
    ]
    write(columns([header, *rows]) + "\n")
