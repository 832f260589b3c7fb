"""What the backend makes of lowered graphs before a weight is read: their nodes, and the memory that they will take."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ernie_rt.contract import Limits, Lowering, MemoryReport, Target, available_memory
from ernie_rt_onnx.emitter import Emitter, is_tiled
from ernie_rt_onnx.model import step_emitter


def emit_all(
    lowerings: Mapping[str, Lowering], target: Target, limits: Limits, accuracy_level: int
) -> dict[str, Emitter]:
    """The nodes of each graph, and what they need of weights."""
    slots, rows = limits.max_sequences, limits.max_context
    bindings = {"P": rows, "R": slots * rows, "S": slots}
    weights = {weight.name: weight for lowering in lowerings.values() for weight in lowering.graph.weights}
    room = available_memory()
    scarce = room is not None and sum(weight.nbytes() for weight in weights.values() if is_tiled(weight)) > room
    return {
        name: step_emitter(lowering, target.dtype, bindings, accuracy_level, scarce)
        for name, lowering in lowerings.items()
    }


def bill(
    emitters: Mapping[str, Emitter],
    lowerings: Mapping[str, Lowering],
    available: int | None,
    placed: Mapping[str, Collection[str]] | None = None,
) -> MemoryReport:
    """What a model takes of a device that has `available` bytes left (None: of main memory); `placed` are the
    parameters of each graph that lie in files, None those that may.

    Of these our operators read tiles where they lie. ONNX Runtime packs the others; raw experts, which the library
    reads in place as well, are counted as if it did.
    """
    weights: dict[str, int] = {}
    mapped: dict[str, int] = {}
    states: dict[str, int] = {}
    for name, emitter in emitters.items():
        for key, parameter in emitter.parameters.items():
            stored = parameter.weight.parts[parameter.part]
            weights[key] = stored.with_dtype(parameter.dtype).nbytes(emitter.bindings)
            if is_tiled(parameter.weight) and (placed is None or key in placed[name]):
                mapped[key] = weights[key]
        states.update((state.name, state.nbytes(emitter.bindings)) for state in lowerings[name].graph.states)
    mapped_bytes = sum(mapped.values())
    return MemoryReport(sum(weights.values()), sum(states.values()), available=available, mapped_bytes=mapped_bytes)
