"""A model made ready for a backend: its graphs as they are given to it and as it runs them, and what that will take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ernie_rt.contract.planner import Planner
from ernie_rt.contract.protocols import Backend, Executable, Limits, MemoryReport, Target
from ernie_rt.display import human_bytes
from ernie_rt.errors import BackendError
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.legalize import Lowering, legalize
from ernie_rt.graph.routers import Router, open_routers
from ernie_rt.graph.types import Storage, Value, Weight
from ernie_rt.hooks import PLUGIN_API
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.modeling.ernie45 import OF_VISION
from ernie_rt.modeling.graphs import MAIN, VISION, build_graphs, weights_of
from ernie_rt.weights.source import WeightSource


@dataclass(frozen=True, slots=True)
class Build:
    """The graphs of a model by name, `main` among them, for one backend and target. No weight is read for it.

    What a graph puts out beside logits is tapped under its name. `notes` say what is dequantised or converted while
    weights are filled, with the bytes that this makes. `routers` are those of `main` whose choices are tapped. `stored`
    is how the weights are stored, by name.
    """

    backend: Backend
    target: Target
    graphs: Mapping[str, Graph]
    lowerings: Mapping[str, Lowering]
    notes: tuple[str, ...] = ()
    routers: tuple[Router, ...] = ()
    stored: Mapping[str, Storage] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.graphs[MAIN]

    @property
    def lowering(self) -> Lowering:
        return self.lowerings[MAIN]

    def with_taps(self, taps: Iterable[tuple[str, Value]], name: str = MAIN) -> Build:
        """The same, with these values of a lowered graph handed back by these names."""
        return replace(self, lowerings={**self.lowerings, name: replace(self.lowerings[name], taps=tuple(taps))})

    def bill(self, limits: Limits) -> MemoryReport:
        """What compiling it will take, without doing so."""
        report = self.backend.bill(self.lowerings, self.target, limits)
        return replace(report, notes=(*self.notes, *report.notes))

    def compile(self, source: WeightSource, limits: Limits) -> Executable:
        executable = self.backend.compile(self.lowerings, source, self.target, limits)
        check_contract(executable, Executable)
        return executable


def build(
    model: ModelConfig | Mapping[str, Graph],
    backend: Backend,
    target: Target,
    storages: Mapping[str, Storage] | None = None,
    taps: Collection[str] = (),
    routing: bool = False,
) -> Build:
    """Make a model ready: that of a config, its weights stored as `storages` say by name, or these graphs.

    `taps` are scopes of `main`, or of `vision` if they begin like that; with `routing` all that the routers choose is
    tapped as well. Raises what `legalize` does, and whatever the backend does.
    """
    check_contract(backend, Backend)
    graphs = build_graphs(model, target.dtype, storages) if isinstance(model, ModelConfig) else model
    routers: tuple[Router, ...] = ()
    if routing:
        opened, routers = open_routers(graphs[MAIN])
        graphs = {**graphs, MAIN: opened}
        taps = (*taps, *(tap for router in routers for tap in router.taps))
    given = {name: accepted(graph, backend, target) for name, graph in graphs.items()}
    homes = {tap: VISION if VISION in graphs and tap.startswith(OF_VISION) else MAIN for tap in taps}
    lowerings = {
        name: _with_outputs(
            legalize(
                graph, lambda node: backend.claims(node, target), [tap for tap, home in homes.items() if home == name]
            )
        )
        for name, graph in given.items()
    }
    stored, held = weights_of(graphs), weights_of(given)
    storages = {name: weight.storage for name, weight in stored.items() if weight.storage.stored}
    return Build(backend, target, given, lowerings, _notes(stored, held), routers, storages)


def _with_outputs(lowering: Lowering) -> Lowering:
    """The same, with the outputs that are no logits handed back as taps."""
    outputs = tuple((name, value) for name, value in lowering.graph.outputs if name != "logits")
    return replace(lowering, taps=(*lowering.taps, *outputs))


def accepted(graph: Graph, backend: Backend | Planner, target: Target) -> Graph:
    """The graph with packed weights as numbers, where the backend does not take them as they are."""
    packed = {weight.storage for weight in graph.weights if weight.storage.packed}
    taken = {storage for storage in packed if backend.accepts(storage, target)}
    return graph.with_weights(lambda weight: weight if weight.storage in taken else weight.plain)


def check_contract(found: object, contract: type) -> None:
    """BackendError when a backend or an executable lacks what the contract asks for."""
    lacking = [name for name in vars(contract) if not name.startswith("_") and not hasattr(found, name)]
    if lacking:
        raise BackendError(
            f"{type(found).__qualname__} has no {', '.join(lacking)}",
            expected=f"what ernie_rt.contract.{contract.__name__} asks for, of plugin API {PLUGIN_API}",
            hint=f"Derive it from {contract.__name__}Base, and read `What changed` in docs/backends.md",
        )


def _notes(stored: Mapping[str, Weight], held: Mapping[str, Weight]) -> tuple[str, ...]:
    made: dict[tuple[str, str, str], int] = {}
    for name, weight in stored.items():
        if weight.storage != held[name].storage:
            key = "dequantised", str(weight.storage), weight.type.dtype
        elif not weight.storage.packed and weight.parts["data"].dtype != weight.type.dtype:
            key = "converted", weight.parts["data"].dtype, weight.type.dtype
        else:
            continue
        made[key] = made.get(key, 0) + weight.type.nbytes()
    return tuple(f"{human_bytes(n)} of weights {how} from {old} to {new}" for (how, old, new), n in made.items())
