"""The backend and its executable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ernie_rt.contract import (
    Accept,
    BackendBase,
    Done,
    ExecutableBase,
    Executed,
    Finding,
    Graph,
    Interpreter,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    PagedContents,
    Pending,
    Planner,
    Reject,
    State,
    Step,
    StepResult,
    StepTimes,
    Stopwatch,
    Storage,
    Target,
    Value,
    Weight,
    WeightSource,
    check_memory,
    graphs_of,
)
from ernie_rt_eager.alone import FUNCTIONS_ALONE
from ernie_rt_eager.attention import Context, LayerCache
from ernie_rt_eager.examine import examine, notes
from ernie_rt_eager.ops import DTYPES, FUNCTIONS
from ernie_rt_eager.planner import EagerPlanner
from ernie_rt_eager.products import exact_sums
from ernie_rt_eager.timing import stopwatch

SAID_BY_CONTEXT: Final = frozenset({"sequence", "index", "write", "context", "context_sequence", "context_index"})
"""Index arrays that attention over a cache takes in; a Context says what they say in a form of its own."""

OUTPUTS: Final = "outputs to NumPy"


class EagerBackend(BackendBase):
    """Claims the composites; blocks decompose."""

    functions: ClassVar[Mapping[str, Callable[..., Any]]] = FUNCTIONS
    planner: ClassVar[Planner] = EagerPlanner()

    def devices(self) -> tuple[str, ...]:
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append("mps")
        return (*found, "cpu")

    def not_deterministic(self, target: Target) -> str | None:
        kind = target.device.partition(":")[0]
        return None if kind in ("cpu", "cuda") else f"nobody has seen how PyTorch's kernels for {kind} sum"

    def examine(self, target: Target) -> Iterator[Finding]:
        return examine(target)

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        if target.deterministic and node.operands.get("index") is not None and node.operands.get("state") is None:
            return Reject("what tokens become that see those before them depends on how many come after")
        return Accept() if node.op in self.functions else Reject("eager runs the composites one by one")

    def numerics(self, target: Target) -> Numerics:
        wide = OpNumerics("float32", "float32")
        return Numerics(OpNumerics(target.dtype, "float32"), {"moe_route": wide, "rms_norm": wide, "layer_norm": wide})

    def accepts(self, storage: Storage, target: Target) -> bool:
        return self.planner.accepts(storage, target)

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        report = self.planner.bill(graphs_of(lowerings), target, limits)
        device = torch.device(target.device)
        return replace(report, available=torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None)

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> EagerExecutable:
        functions = FUNCTIONS_ALONE if target.deterministic else self.functions
        return EagerExecutable(lowerings, weights, target, limits, functions, self.bill(lowerings, target, limits))


@runtime_checkable
class TensorSource(WeightSource, Protocol):
    """A source that also fills tensors where they lie, on whatever device."""

    def fill_tensor(self, weight: Weight, out: Tensor) -> None:
        """Write a stored weight into `out`, which has its shape and dtype."""
        ...


class EagerExecutable(ExecutableBase):
    """Tensors on one device, a paged cache, and an Interpreter for each graph."""

    def __init__(
        self,
        lowerings: Mapping[str, Lowering],
        source: WeightSource,
        target: Target,
        limits: Limits,
        functions: Mapping[str, Callable[..., Any]],
        report: MemoryReport,
    ) -> None:
        check_memory(report, limits.memory_bytes)
        self._report = report
        self._target, self._device = target, torch.device(target.device)
        contents = PagedContents.of(lowerings, limits)
        self.cache, self.admits, bindings = contents.cache, contents.admits, contents.bindings
        tensors = {name: self._load(weight, source, bindings) for name, weight in contents.weights.items()}
        self._caches = {name: self._allocate(state, bindings) for name, state in contents.states.items()}
        self._interpreters = {
            name: Interpreter(lowering, functions, tensors, self._caches) for name, lowering in lowerings.items()
        }
        self._graphs = {name: lowering.graph for name, lowering in lowerings.items()}
        self._ran: Counter[str] = Counter()
        """How many ops ran, by device."""
        self._said = {name: SAID_BY_CONTEXT - _read_as_tensors(graph) for name, graph in self._graphs.items()}

    @torch.inference_mode()
    def submit(self, step: Step) -> Pending:
        with exact_sums(self._device), threads(self._target.threads):
            return self._run(step)

    @torch.inference_mode()
    def timed(self, step: Step) -> tuple[StepResult, StepTimes]:
        with exact_sums(self._device), threads(self._target.threads):
            watch = stopwatch(self._device)
            result = self._compute_all(step, watch).result()
            return result, watch.times()

    def _run(self, step: Step) -> Pending:
        return self._compute_all(step)

    def _compute_all(self, step: Step, watch: Stopwatch | None = None) -> Pending:
        """Node by node."""
        outputs, taps = self._compute(step, watch)
        logits = outputs.get("logits")
        result = StepResult(None if logits is None else logits.float().cpu().numpy(), taps=to_numpy(taps))
        if watch is not None:
            watch.other(OUTPUTS)
        return Done(result)

    def _compute(self, step: Step, watch: Stopwatch | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The outputs and taps of the step's graph, on the device."""
        graph, context = self._graphs[step.graph], Context(step, self._device)
        self._ran[str(self._device)] += len(graph.nodes)
        inputs = {
            value.name: (context if value.name == "context" else None)
            if value.name in self._said[step.graph]
            else self._input(step, value)
            for value in graph.inputs
        }
        if watch is not None:
            watch.other("inputs to tensors")
        after = None if watch is None else watch.node
        return self._interpreters[step.graph].run(inputs, step.bindings(graph), after)

    def copy(self, source: int, destination: int, length: int) -> None:
        size = self.cache.page_size
        first, second = (slice(page * size, page * size + length) for page in (source, destination))
        for cache in self._caches.values():
            cache.k[second] = cache.k[first]
            cache.v[second] = cache.v[first]

    @torch.inference_mode()
    def read_rows(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        index = self._row_index(rows)
        found = [part.index_select(0, index).flatten(1).view(torch.uint8) for part in self._row_states()]
        gathered: npt.NDArray[np.uint8] = torch.cat(found, dim=1).cpu().numpy()
        return gathered

    @torch.inference_mode()
    def write_rows(self, rows: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> None:
        index, first = self._row_index(rows), 0
        packed = torch.from_numpy(data.copy()).to(self._device)
        for part in self._row_states():
            last = first + part[0].nbytes
            part.index_copy_(0, index, packed[:, first:last].contiguous().view(part.dtype).view(-1, *part.shape[1:]))
            first = last

    def memory(self) -> MemoryReport:
        return self._report

    def executed(self) -> Executed:
        return Executed(dict(self._ran), notes(self._target))

    def close(self) -> None:
        self._interpreters, self._caches = {}, {}
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _row_states(self) -> Iterator[Tensor]:
        for cache in self._caches.values():
            yield from (cache.k, cache.v)

    def _row_index(self, rows: npt.NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self._device)

    def _input(self, step: Step, value: Value) -> Tensor:
        array = np.ascontiguousarray(step.input(value.name))
        return torch.from_numpy(array).to(self._device, DTYPES[value.type.dtype])

    def _load(self, weight: Weight, source: WeightSource, bindings: Mapping[str, int]) -> Tensor:
        """The weight on the device, gate and up apart in memory; through a buffer of one slice when that is not main
        memory."""
        logical = empty_weight(weight, bindings, self._device)
        if isinstance(source, TensorSource) and weight.storage.stored:
            source.fill_tensor(weight, logical)
        elif self._device.type == "cpu":
            source.fill(weight, "data", _numpy_view(logical))
        else:
            leading = logical.shape[: -3 if weight.paired else -2]
            staging = torch.empty_like(logical[(0,) * len(leading)], device="cpu")
            for index in np.ndindex(*leading):
                source.fill(weight, "data", _numpy_view(staging), tuple(index))
                logical[index].copy_(staging)
        return logical

    def _allocate(self, state: State, bindings: Mapping[str, int]) -> LayerCache:
        rows, _, heads, size = state.type.shape(bindings)
        k, v = (torch.empty(rows, heads, size, dtype=DTYPES[state.type.dtype], device=self._device) for _ in range(2))
        return LayerCache(k, v)


def empty_weight(weight: Weight, bindings: Mapping[str, int], device: torch.device) -> Tensor:
    """Room for a weight; gate and up, `[.., I, 2, H]`, lie apart in memory, one after the other."""
    shape, dtype = weight.type.shape(bindings), DTYPES[weight.type.dtype]
    if not weight.paired:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.empty(*shape[:-3], 2, shape[-3], shape[-1], dtype=dtype, device=device).transpose(-3, -2)


def _read_as_tensors(graph: Graph) -> set[str]:
    """The inputs that something else than attention over a cache reads."""
    return {
        operand.name
        for node in graph.nodes
        if node.operands.get("state") is None
        for operand in node.inputs
        if isinstance(operand, Value)
    }


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Have PyTorch use so many threads of the CPU while the block runs (None: as many as it does)."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numpy_view(tensor: Tensor) -> np.ndarray:
    """A CPU tensor's memory as a NumPy array of the same dtype."""
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_numpy(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The values by name, any float dtype as float32."""
    return {name: (v.float() if v.is_floating_point() else v).cpu().numpy() for name, v in values.items()}
