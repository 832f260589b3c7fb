"""A backend as one of captured GPU graphs would be, acted out in NumPy, to try the contract with sampling on a device.

Decodes run in graphs of 1, 2, 4, … rows that read nothing but buffers of fixed size, which each step overwrites. Rows
without a sequence write to a page and sample for a seat of their own. A step runs when the next one is submitted, or
when its result is asked for before that, as a device does that lags one step behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ernie_rt.contract import (
    LAST_DRAWN,
    Accept,
    BackendBase,
    CacheShape,
    Draws,
    ExecutableBase,
    Interpreter,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    PagedContents,
    Reject,
    Step,
    StepLimits,
    StepResult,
    Target,
    WeightSource,
    draw,
)
from ernie_rt.graph.types import Weight
from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl
from ernie_rt.reference.ops import MEANINGS

__all__ = ["PLUGIN_API", "ernie_rt_backends"]

PAGE_SIZE = 4


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [BackendInfo("capture", f"{__name__}:CaptureBackend", "Captured graphs, acted out", {"cpu": ("float64",)})]


class CaptureBackend(BackendBase):
    """`mixed` and `pages` say what the next executable admits and holds."""

    def __init__(self) -> None:
        self.mixed = True
        self.pages: int | None = None
        self.executables: list[CaptureExecutable] = []

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        return Accept() if node.spec.level == "block" else Reject("blocks alone")

    def numerics(self, target: Target) -> Numerics:
        return Numerics(OpNumerics("float64", "float64"))

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        return PagedContents.of(lowerings, limits).report("float64")

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> CaptureExecutable:
        pages = self.pages or limits.max_sequences * -(-limits.max_context // PAGE_SIZE)
        (lowering,) = lowerings.values()
        self.executables.append(CaptureExecutable(lowering, weights, limits, pages, self.mixed))
        return self.executables[-1]


@dataclass(frozen=True, eq=False)
class Buffers:
    """What a captured graph of a fixed number of rows reads; rows not filled are idle."""

    ids: npt.NDArray[np.int32]
    past: npt.NDArray[np.int32]
    tables: npt.NDArray[np.int32]
    seats: npt.NDArray[np.int32]
    draws: Draws

    @classmethod
    def of(cls, rows: int, width: int) -> Buffers:
        arrays = (np.empty(shape, np.int32) for shape in (rows, rows, (rows, width), rows))
        return cls(*arrays, Draws.greedy(rows, 1))

    def fill(self, step: Step, idle_page: int, idle_seat: int) -> None:
        used = len(step.ids)
        for buffer, idle, values in (
            (self.ids, 0, step.ids),
            (self.past, 0, step.past),
            (self.tables, idle_page, step.tables),
            (self.seats, idle_seat, step.seats),
        ):
            buffer[used:] = idle
            buffer[(slice(used), *map(slice, values.shape[1:]))] = values
        assert step.draws is not None
        for field in fields(Draws):
            getattr(self.draws, field.name)[:used] = getattr(step.draws, field.name)

    def step(self) -> Step:
        rows = len(self.ids)
        return Step(
            ids=self.ids,
            query_start=np.arange(rows + 1, dtype=np.int32),
            past=self.past,
            tables=self.tables,
            page_size=PAGE_SIZE,
            seats=self.seats,
            rows=np.arange(rows, dtype=np.int32),
            draws=self.draws,
        )


class LatePending:
    """What a step gave, once the device has come to it."""

    def __init__(self, executable: CaptureExecutable, step: Step) -> None:
        self.executable = executable
        self.step = step
        self.value: StepResult | None = None

    def result(self) -> StepResult:
        self.executable.was_ahead.append(self.executable.steps[-1] is not self.step)
        if self.value is None:
            self.executable.catch_up()
        assert self.value is not None
        return self.value


class CaptureExecutable(ExecutableBase):
    ahead = 1

    def __init__(self, lowering: Lowering, source: WeightSource, limits: Limits, pages: int, mixed: bool) -> None:
        self.cache = CacheShape("paged", PAGE_SIZE, pages)
        self.admits = StepLimits(limits.max_batch_tokens, limits.max_sequences, mixed)
        graph = lowering.graph
        bindings = {"P": limits.max_context, "R": (pages + 1) * PAGE_SIZE}  # the last page is for idle rows
        self._graph = graph
        weights = {weight.name: self._load(weight, source, bindings) for weight in graph.weights}
        self._caches = {state.name: np.full(state.type.shape(bindings), np.nan) for state in graph.states}
        self._interpreter = Interpreter(lowering, MEANINGS, weights, self._caches)
        self._report = MemoryReport(
            sum(array.nbytes for array in weights.values()), sum(array.nbytes for array in self._caches.values())
        )
        width = -(-limits.max_context // PAGE_SIZE)
        sizes = [1]
        while sizes[-1] < limits.max_sequences:
            sizes.append(2 * sizes[-1])
        self._buffers = {rows: Buffers.of(rows, width) for rows in sizes}
        self._last = np.full(limits.max_sequences + 1, -1, np.int64)  # by seat; the last one is the idle rows'
        self._late: LatePending | None = None
        self.steps: list[Step] = []
        self.copies: list[tuple[int, int, int]] = []
        self.was_ahead: list[bool] = []
        self.idle_rows: list[tuple[int, int]] = []

    def submit(self, step: Step) -> LatePending:
        self.catch_up()
        self.steps.append(step)
        if (step.new == 1).all():
            buffers = self._buffers[self._rows_for(len(step.ids))]
            buffers.fill(step, idle_page=self.cache.pages, idle_seat=self.admits.max_sequences)
        self._late = LatePending(self, step)
        return self._late

    def catch_up(self) -> None:
        """Run what was submitted last, if that is still to do."""
        pending, self._late = self._late, None
        if pending is None:
            return
        step = pending.step
        if (step.new == 1).all():
            rows = self._rows_for(len(step.ids))
            self.idle_rows.append((rows, rows - len(step.ids)))
            logits, tokens, counts = self._run(self._buffers[rows].step(), live=step)
            logits, tokens, counts = logits[step.rows], tokens[: len(step.ids)], counts[: len(step.ids)]
        else:
            logits, tokens, counts = self._run(step, live=step)
        assert step.fetch is not None
        pending.value = StepResult(logits[step.fetch] if len(step.fetch) else None, tokens.copy(), counts)

    def copy(self, source: int, destination: int, length: int) -> None:
        self.catch_up()
        self.copies.append((source, destination, length))
        for cache in self._caches.values():
            rows = cache[source * PAGE_SIZE :][:length]
            cache[destination * PAGE_SIZE :][:length] = rows

    def memory(self) -> MemoryReport:
        return self._report

    def close(self) -> None:
        self._late = None

    def _run(self, step: Step, live: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits, tokens and their counts of `step`, which has the rows of `live` and perhaps idle ones."""
        before = {name: cache.copy() for name, cache in self._caches.items()}
        inputs = step.inputs(self._graph)
        sampled = np.maximum(self._last[step.seats[step.sequence]], 0)
        inputs["ids"] = np.where(step.ids == LAST_DRAWN, sampled, step.ids)
        outputs, _ = self._interpreter.run(inputs, step.bindings(self._graph))
        logits = outputs["logits"]
        assert step.draws is not None
        where, sequence, ahead = step.drawn_rows
        tokens, counts = step.verified(draw(logits[where], step.draws.rows(sequence, ahead)))
        drawn = np.flatnonzero(counts)
        self._last[step.seats[drawn]] = tokens[drawn, counts[drawn] - 1]
        assert np.isfinite(logits).all(), "a row was read that nobody wrote"
        for name, cache in self._caches.items():
            kept = np.ones(len(cache), bool)
            kept[live.write] = False
            kept[self.cache.pages * PAGE_SIZE :] = False
            np.testing.assert_array_equal(cache[kept], before[name][kept], "a row changed that no live token owns")
        return logits, tokens, counts

    def _rows_for(self, sequences: int) -> int:
        return min(rows for rows in self._buffers if rows >= sequences)

    def _load(self, weight: Weight, source: WeightSource, bindings: Mapping[str, int]) -> np.ndarray:
        out = np.empty(weight.type.shape(bindings))
        source.fill(weight, "data", out)
        return out
