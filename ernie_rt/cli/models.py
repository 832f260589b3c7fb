"""`ernie-rt models`: the known models."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ernie_rt.cli.options import Json

if TYPE_CHECKING:
    from ernie_rt.modeling.config import ModelConfig


def models(as_json: Json = False) -> None:
    """List the known models, their figures, and which of them see.

    A second table says which of Baidu's own files were compared with them.
    """
    from ernie_rt.cli.output import table, write
    from ernie_rt.display import human_count
    from ernie_rt.modeling.config import read_config
    from ernie_rt.modeling.families import FAMILIES, STANDINGS
    from ernie_rt.weights.hub import DEMO, DEMO_VL

    demos = [
        _figures(folder.name, read_config(folder), None, f"{summary}, comes with ernie-rt") | {"verified": None}
        for folder, summary in (
            (DEMO, "16 experts, 4 active and 2 shared"),
            (DEMO_VL, "sees pictures; 8 experts of text and 8 of vision, 2 active and 2 shared"),
        )
    ]
    known = [_figures(f.name, f.config, f.hub_id, f.summary) | {"verified": asdict(f.evidence)} for f in FAMILIES]
    if as_json:
        write(json.dumps([*demos, *known], indent=2) + "\n")
        return
    header = ["NAME", "PARAMETERS", "ACTIVE", "LAYERS", "HIDDEN", "CONTEXT", "KV B/TOKEN", "SEES", "HUB ID"]
    keys = ["num_hidden_layers", "hidden_size", "max_position_embeddings", "kv_bytes_per_token"]
    rows = [
        [
            row["name"],
            human_count(row["parameters"]),
            human_count(row["active_parameters"]),
            *(str(row[key]) for key in keys),
            "yes" if row["sees"] else "-",
            row["hub_id"] or "- (comes with ernie-rt)",
        ]
        for row in (*demos, *known)
    ]
    checked = [[row["name"], *row["verified"].values()] for row in known]
    titles = ["FILES OF BAIDU", *(file.upper() for file in known[0]["verified"])]
    table([header, *rows])
    write("\n")
    table([titles, *checked])
    write("\n")
    table([[standing, meaning] for standing, meaning in STANDINGS.items()])


def _figures(name: str, config: ModelConfig, hub_id: str | None, summary: str) -> dict[str, Any]:
    from ernie_rt.graph.cost import active_parameters, parameters
    from ernie_rt.modeling.ernie45 import build_graph
    from ernie_rt.modeling.graphs import build_graphs

    graphs, text = build_graphs(config), build_graph(config.text_alone)
    return {
        "name": name,
        "hub_id": hub_id,
        "summary": summary,
        "sees": config.sees is not None,
        "parameters": parameters(*graphs.values()),
        "active_parameters": active_parameters(text),
        "num_hidden_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "max_position_embeddings": config.max_position_embeddings,
        "kv_bytes_per_token": sum(state.type.nbytes({"R": 1}) for state in text.states),
    }
