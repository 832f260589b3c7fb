"""All graphs of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import DType, Storage, Weight
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import as_stored, build_graph
from ernie_rt.modeling.vision_tower import build_vision_graph

MAIN: Final = "main"
VISION: Final = "vision"


def build_graphs(
    config: ModelConfig, dtype: DType | None = None, storages: Mapping[str, Storage] | None = None
) -> dict[str, Graph]:
    """The graphs by name: `main` and, of a model that sees, `vision`. The rest is as `build_graph` has it."""
    graphs = {MAIN: build_graph(config, dtype, storages)}
    sees = as_stored(config, storages or {}).sees
    if sees is not None:
        graphs[VISION] = build_vision_graph(config, sees, dtype, storages)
    return graphs


def weights_of(graphs: Mapping[str, Graph]) -> dict[str, Weight]:
    """Every weight of some graphs by its name."""
    return {weight.name: weight for graph in graphs.values() for weight in graph.weights}
