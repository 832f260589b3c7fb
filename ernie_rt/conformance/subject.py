"""The backend that is examined, on one device and in one dtype."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ernie_rt.build import Build, accepted, build
from ernie_rt.choice import choose
from ernie_rt.conformance.rounding import EPSILON
from ernie_rt.conformance.storage import planned
from ernie_rt.contract.protocols import (
    Backend,
    CacheShape,
    Executable,
    Limits,
    MemoryReport,
    Numerics,
    StepLimits,
    Target,
)
from ernie_rt.contract.step import Pending, Step
from ernie_rt.graph.graph import Graph, Node
from ernie_rt.graph.legalize import Accept, Reject, decompose
from ernie_rt.graph.types import DType, Storage
from ernie_rt.hooks import BackendInfo
from ernie_rt.host import PluginHost, blame
from ernie_rt.weights.quantize import Quantization
from ernie_rt.weights.source import WeightSource


class Skip(BaseException):
    """A check does not apply, for this reason. No error, and no Exception, so that `blame` lets it pass."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check measured, and what is wrong with it, if anything is. `route` is "native" or "decomposed"."""

    figures: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend with what it announces, the target that it is examined on, and how weights are stored: as their cases
    say, or quantised."""

    info: BackendInfo
    backend: Backend
    target: Target
    numerics: Numerics
    quantization: Quantization | None = None

    @classmethod
    def of(
        cls, host: PluginHost, name: str, device: str, dtype: str, quantization: Quantization | None = None
    ) -> Subject:
        """Import a backend and settle what is "auto"; raises what `choose` raises."""
        choice = choose(host, backend=name, device=device, dtype=dtype, stored="float32")
        backend, target = host.backend(name), Target((choice.device,), choice.dtype)
        with blame(name):
            return cls(host.info(name), backend, target, backend.numerics(target), quantization)

    def claims(self, node: Node) -> Accept | Reject:
        return self.backend.claims(node, self.target)

    def planned(self, graph: Graph) -> Graph:
        """A graph with its weights stored as the suite has them."""
        return graph.with_weights(lambda weight: replace(weight, storage=planned(self.quantization, weight)))

    def stored(self, graph: Graph) -> Graph:
        """The same as the backend is given it: quantised where it accepts that, else with numbers, which are made while
        they are filled."""
        with blame(self.info.name):
            return accepted(self.planned(graph), self.backend, self.target)

    def grain(self, graph: Graph) -> DType:
        """The dtype as coarse as what activations are rounded to in a graph: the target's or, where they meet weights
        in blocks as int8, that of as many bits."""
        own = self.target.dtype
        rounded = any(op.activations for op in (self.numerics.default, *self.numerics.ops.values()))
        if rounded and any(weight.storage.activation_block for weight in graph.weights):
            return max(own, "bfloat16", key=lambda dtype: EPSILON[dtype])
        return own

    def accepts(self, storage: Storage) -> bool:
        with blame(self.info.name):
            return self.backend.accepts(storage, self.target)

    def build(self, *graphs: Graph, taps: tuple[str, ...] = ()) -> Build:
        with blame(self.info.name):
            return build({graph.name: self.planned(graph) for graph in graphs}, self.backend, self.target, taps=taps)

    def refusal(self, nodes: Iterable[Node]) -> str:
        """Of the first node that the backend runs neither whole nor in parts, what it says: of the node itself, and of
        what that decomposes into, as far down as it says something new. Empty when it runs them all."""
        with blame(self.info.name):
            reasons: dict[str, str] = {}
            for op, reason in self._refused(nodes):
                reasons.setdefault(reason, op)
        return "; ".join(f"{op}: {reason}" for reason, op in reasons.items())

    def _refused(self, nodes: Iterable[Node]) -> list[tuple[str, str]]:
        for node in nodes:
            verdict = self.claims(node)
            if isinstance(verdict, Reject):
                below = self._refused(decompose(node)[0]) if node.spec.decompose is not None else []
                if below or node.spec.decompose is None:
                    return [(node.op, verdict.reason), *below]
        return []

    @contextmanager
    def compiled(self, build: Build, source: WeightSource, limits: Limits) -> Iterator[Executable]:
        """A build, compiled and closed at the end; whatever the backend raises names it."""
        with blame(self.info.name):
            executable = build.compile(source, limits)
            try:
                yield executable
            finally:
                executable.close()


class Around:
    """An executable that hands everything on to another; what differs, a subclass says."""

    def __init__(self, inner: Executable) -> None:
        self.inner = inner

    @property
    def cache(self) -> CacheShape:
        return self.inner.cache

    @property
    def admits(self) -> StepLimits:
        return self.inner.admits

    @property
    def ahead(self) -> int:
        return self.inner.ahead

    def submit(self, step: Step) -> Pending:
        return self.inner.submit(step)

    def copy(self, source: int, destination: int, length: int) -> None:
        self.inner.copy(source, destination, length)

    def memory(self) -> MemoryReport:
        return self.inner.memory()

    def close(self) -> None:
        self.inner.close()
