"""What a backend knows of memory and speed before it is imported, of devices that are here and that are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ernie_rt.contract.protocols import Limits, MemoryReport, Target
from ernie_rt.graph.cost import live_bytes
from ernie_rt.graph.graph import Graph
from ernie_rt.graph.types import Storage
from ernie_rt.modeling.graphs import VISION


@dataclass(frozen=True, slots=True)
class Device:
    """A card, a CPU, a Mac, or this machine, as those who plan see it.

    `kind` is "cpu", "cuda" or "mps"; `bandwidth` the peak in bytes a second (of this machine: measured), `flops` peak
    dense FLOPs a second by the dtype that is multiplied, "int8" among them. `source` says where the figures are from,
    `features` what the device has, such as avx512_bf16, avx512_vnni, amx or a compute capability.
    """

    name: str
    kind: str
    memory_bytes: int
    bandwidth: float
    flops: Mapping[str, float]
    source: str
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rate:
    """What of a device's peaks is reached with weights that are held in one way.

    `bandwidth` is the share of its bytes a second while decoding, `flops` the share of its FLOPs a second while prompts
    are read, of those that multiply `products` ("float32", "bfloat16", "int8").
    """

    bandwidth: float
    flops: float
    products: str


@dataclass(frozen=True, slots=True)
class Rates:
    """What benchmarks of a backend reach of the floor on a kind of device.

    `weights` are the rates by how weights are held ("float32", "bfloat16", "int8", "int4"), `cache` is the share of
    bandwidth at which attention reads rows of the cache. A step costs `step_seconds`, and each composite of the graph,
    each chosen expert for itself, `node_seconds`, whatever it computes. `source` says where the figures are from. A
    backend that no device of the kind `has_run` may be named, but does not outrank one that has.
    """

    weights: Mapping[str, Rate]
    cache: float
    step_seconds: float
    node_seconds: float
    source: str
    has_run: bool = True


class Planner(Protocol):
    """What a backend knows of planning, in a module that imports nothing heavy (`BackendInfo.planner`).

    Constructed without arguments. No device is asked, and none need be there.
    """

    def accepts(self, storage: Storage, target: Target) -> bool:
        """What `Backend.accepts` says."""
        ...

    def bill(self, graphs: Mapping[str, Graph], target: Target, limits: Limits) -> MemoryReport:
        """What `Backend.bill` says of these graphs, whose packed weights the backend accepts; without `available`."""
        ...

    def rates(self, target: Target, device: Device) -> Rates:
        """How fast it is on such a device."""
        ...


def reading(device: Device, products: str, *, most: float, bytes_per_flop: float) -> float:
    """The share of bandwidth at which products with one row read weights: at most so much, and where memory is fast no
    more than so many bytes for each FLOP of the peak, since then it is computing that they wait for."""
    peak = device.flops.get(products)
    return min(most, bytes_per_flop * peak / device.bandwidth) if peak and device.bandwidth else most


def activation_bytes(graphs: Mapping[str, Graph], limits: Limits) -> int:
    """The most bytes of activations that are alive at once in the largest step that the limits allow."""
    return max((live_bytes(graph, _largest(graph, limits)) for graph in graphs.values()), default=0)


def _largest(graph: Graph, limits: Limits) -> dict[str, int]:
    """What the symbolic axes of a graph measure in its largest step."""
    if graph.name == VISION:  # patches, blocks of four of them, and features, one of each block of a picture
        return {"S": limits.max_patches, "M": limits.max_patches // 4, "F": limits.max_patches // 4}
    tokens = min(limits.max_batch_tokens, limits.max_context * limits.max_sequences)
    # Inputs beside index arrays may have axes of their own: as long as a step at most, such as rows for some tokens.
    own = {dim for value in graph.inputs for dim in value.type.dims if isinstance(dim, str)}
    sizes = {"N": tokens, "C": limits.max_context, "P": limits.max_context, "L": limits.max_sequences}
    return dict.fromkeys(own, tokens) | sizes
