"""A whole backend out of a table of NumPy functions: the base of the reference, and of a first backend of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ernie_rt.contract.bases import BackendBase, ExecutableBase
from ernie_rt.contract.contents import PagedContents
from ernie_rt.contract.findings import Executed
from ernie_rt.contract.interpreter import Interpreter
from ernie_rt.contract.memory import check_memory
from ernie_rt.contract.protocols import (
    Limits,
    MemoryReport,
    Numerics,
    OpNumerics,
    Target,
)
from ernie_rt.contract.step import Done, Int32, Step, StepResult
from ernie_rt.contract.timing import StepTimes, Stopwatch
from ernie_rt.graph.graph import Node
from ernie_rt.graph.legalize import Accept, Lowering, Reject
from ernie_rt.graph.types import DType, Weight
from ernie_rt.weights.source import WeightSource


class SimpleBackend(BackendBase):
    """Runs the ops of which it has a function, on NumPy arrays of one float dtype, on the CPU.

    A subclass sets `functions`, from op names to functions of NumPy arrays, and may set `dtype`. The primitives alone
    are enough to run every model; a function for a larger op takes the place of its decomposition.
    """

    functions: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    dtype: ClassVar[DType] = "float32"

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        return Accept() if node.op in self.functions else Reject("no function of this name")

    def numerics(self, target: Target) -> Numerics:
        return Numerics(OpNumerics(self.dtype, self.dtype))

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        return PagedContents.of(lowerings, limits).report(self.dtype)

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> SimpleExecutable:
        report = self.bill(lowerings, target, limits)
        return SimpleExecutable(lowerings, weights, limits, self.functions, self.dtype, report)


class SimpleExecutable(ExecutableBase):
    """NumPy arrays for weights and for the paged cache, and an Interpreter for each graph."""

    def __init__(
        self,
        lowerings: Mapping[str, Lowering],
        source: WeightSource,
        limits: Limits,
        functions: Mapping[str, Callable[..., Any]],
        dtype: DType,
        report: MemoryReport | None = None,
    ) -> None:
        """`report` is what the backend's bill says (None: weights and cache in this dtype)."""
        contents = PagedContents.of(lowerings, limits)
        self.cache, self.admits, bindings = contents.cache, contents.admits, contents.bindings
        self._report = contents.report(dtype) if report is None else report
        check_memory(self._report, limits.memory_bytes)
        self._dtype = dtype
        self._graphs = {name: lowering.graph for name, lowering in lowerings.items()}
        arrays = {name: _load(weight, source, bindings, dtype) for name, weight in contents.weights.items()}
        states = {name: np.zeros(state.type.shape(bindings), dtype) for name, state in contents.states.items()}
        self._ran = 0
        """How many nodes."""
        self._rows = [states[name] for name, state in contents.states.items() if state.type.dims[0] == "R"]
        self._interpreters = {
            name: Interpreter(lowering, functions, arrays, states) for name, lowering in lowerings.items()
        }

    def submit(self, step: Step) -> Done:
        return Done(self._run(step, None))

    def timed(self, step: Step) -> tuple[StepResult, StepTimes]:
        watch = Stopwatch()
        return self._run(step, watch), watch.times()

    def _run(self, step: Step, watch: Stopwatch | None) -> StepResult:
        graph = self._graphs[step.graph]
        inputs = {name: self._widened(array) for name, array in step.inputs(graph).items()}
        if watch is not None:
            watch.other("inputs")
        self._ran += len(graph.nodes)
        after = None if watch is None else watch.node
        outputs, taps = self._interpreters[step.graph].run(inputs, step.bindings(graph), after)
        logits = dict(graph.outputs).get("logits")
        if logits is None:
            return StepResult(taps=taps)
        return StepResult(logits=outputs["logits"].astype(logits.type.dtype, copy=False), taps=taps)

    def copy(self, source: int, destination: int, length: int) -> None:
        first, second = source * self.cache.page_size, destination * self.cache.page_size
        for rows in self._rows:
            rows[second : second + length] = rows[first : first + length]

    def read_rows(self, rows: Int32) -> npt.NDArray[np.uint8]:
        if not self._rows:
            return np.empty((len(rows), 0), np.uint8)
        parts = [state[rows].reshape(len(rows), state[0].size).view(np.uint8) for state in self._rows]
        return np.concatenate(parts, axis=1)

    def write_rows(self, rows: Int32, data: npt.NDArray[np.uint8]) -> None:
        first = 0
        for state in self._rows:
            part = np.ascontiguousarray(data[:, first : first + state[0].nbytes])
            state[rows] = part.view(state.dtype).reshape(len(rows), *state.shape[1:])
            first += state[0].nbytes

    def executed(self) -> Executed:
        return Executed({"NumPy": self._ran}, (f"numpy {np.__version__}, {self._dtype}",))

    def memory(self) -> MemoryReport:
        return self._report

    def close(self) -> None:
        self._interpreters, self._rows = {}, []

    def _widened(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self._dtype) if array.dtype.kind == "f" else array


def _load(weight: Weight, source: WeightSource, bindings: Mapping[str, int], dtype: DType) -> np.ndarray:
    out = np.empty(weight.type.shape(bindings), dtype)
    source.fill(weight, "data", out)
    return out
