"""A compiled model: steps of decodes are replayed graphs, others run block by block; tokens are drawn on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ernie_rt.contract import (
    NO_NUMBER,
    Executed,
    Finding,
    Limits,
    Lowering,
    MemoryReport,
    Step,
    StepResult,
    StepTimes,
    Stopwatch,
    Target,
    Value,
    WeightSource,
)
from ernie_rt.display import human_bytes
from ernie_rt.errors import BackendError
from ernie_rt.files import Progress
from ernie_rt_cudagraph.blocks import functions
from ernie_rt_cudagraph.blocks.head import HeadOutput
from ernie_rt_cudagraph.inputs import DecodeInputs, Tables, device_draws, to_device
from ernie_rt_cudagraph.launch import current
from ernie_rt_cudagraph.planner import buckets
from ernie_rt_cudagraph.replay import Directly, Recorder
from ernie_rt_cudagraph.sampling import draw, is_greedy
from ernie_rt_eager.backend import EagerExecutable, to_numpy
from ernie_rt_eager.ops import FUNCTIONS
from ernie_rt_eager.products import exact_sums

MAIN: Final = "main"
BROUGHT: Final = frozenset({"positions", "features", "features_row"})
"""What the engine brings of each token, where a model sees."""
SAID: Final = BROUGHT | {"ids", "sequence", "index", "write", "context", "context_sequence", "context_index", "rows"}
"""What a graph may take in to be recorded: buffers that keep their places say it all; that of tokens which stand for
features there is none in a recorded step is part of the recording."""
BETWEEN_BLOCKS: Final = frozenset({"in_range", "rope_rows"})
"""What a model that sees computes once a step, beside blocks; nobody waits in them either."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a recorded step leaves on the device, until the next one: `logits [N, V]`, float32, and `tokens [N]`."""

    logits: Tensor
    tokens: Tensor


class CudaGraphExecutable(EagerExecutable):
    """Eager's tensors and cache, the blocks in its table of functions, and recorded steps of decodes."""

    ahead = 1

    def __init__(
        self,
        lowerings: Mapping[str, Lowering],
        source: WeightSource,
        target: Target,
        limits: Limits,
        recorder: Recorder,
        report: MemoryReport,
        *,
        pdl: bool,
    ) -> None:
        device = torch.device(target.device)
        self._buckets = buckets(limits.max_sequences)
        self._inputs = DecodeInputs(
            self._buckets[-1], limits.max_sequences, device, columns=position_columns(lowerings.get(MAIN))
        )
        self._pdl, self._output = pdl, HeadOutput()
        blocks = functions(self._inputs.live, self._output, pdl=pdl)
        super().__init__(lowerings, source, target, limits, {**FUNCTIONS, **blocks}, report)
        self.admits = replace(self.admits, mixed=False)
        self._tables = Tables(limits.max_sequences, -(-limits.max_context // self.cache.page_size), device)
        self._last = torch.zeros(limits.max_sequences + 1, dtype=torch.int32, device=device)  # by seat; one for padding
        self._every_row = torch.arange(self._buckets[-1], dtype=torch.int32, device=device)
        self._replays: dict[tuple[int, bool], Callable[[], Drawn]] = {}
        self._recorder: Recorder | None = recorder
        self._records, self._replayed = not isinstance(recorder, Directly), 0
        """Whether steps are recorded as graphs, and how many steps were replayed."""
        self._why_not = obstacle(lowerings)
        if self._why_not is not None:
            self._recorder = None
            self._note(f"steps run block by block: {self._why_not}")

    def prepare(self, progress: Progress | None = None) -> None:
        """Record a graph for each number of rows, the largest first: the others find room in its memory."""
        if self._recorder is None:
            return
        wanted = [(rows, greedy) for rows in reversed(self._buckets) for greedy in (True, False)]
        if isinstance(self._recorder, Directly):
            self._replays = {key: partial(self._decodes, *key) for key in wanted}
            self._recorder = None
            return
        began, free = time.perf_counter(), self._free()
        vocabulary = dict(self._graphs[MAIN].outputs)["logits"].type.dims[-1]
        assert isinstance(vocabulary, int)
        logits = torch.empty(self._buckets[-1], vocabulary, dtype=torch.float32, device=self._device)
        self._inputs.clear()
        replays: dict[tuple[int, bool], Callable[[], Drawn]] = {}
        self._output.logits = logits
        try:
            for rows, greedy in wanted:
                with current(self._device), exact_sums(self._device):
                    replays[rows, greedy] = self._recorder.record(partial(self._decodes, rows, greedy))
                if progress is not None:
                    progress(len(replays), len(wanted))
        except Exception as problem:
            cause = first_of(problem)
            raise BackendError(
                "a step could not be recorded as a CUDA graph",
                where=f"{rows} sequences",
                found=f"{type(cause).__name__}: {cause}",
                hint="Load with graphs=False (--no-graphs), which runs the same kernels one by one",
            ) from problem
        finally:
            self._output.logits = None
        self._replays, self._recorder = replays, None
        taken = max(logits.nbytes, free - self._free())
        self._report = replace(self._report, workspace_bytes=self._report.workspace_bytes + taken)
        self._note(
            f"{len(wanted)} graphs of steps, recorded in {time.perf_counter() - began:.1f} s, take {human_bytes(taken)}"
        )

    def executed(self) -> Executed:
        executed = super().executed()
        if not self._records:
            return replace(executed, notes=(f"{self._replayed} decodes kernel by kernel", *executed.notes))
        told = f"{self._replayed} decodes from {len(self._replays)} recorded graphs"
        findings: tuple[Finding, ...] = ()
        if not self._replayed:
            seen = f"no step ran from a recorded graph: {self._why_not or 'none was of decodes alone'}"
            findings = (Finding("slow", seen, "for each token the host starts every kernel anew"),)
        return replace(executed, notes=(told, *executed.notes), findings=findings)

    def close(self) -> None:
        self._replays = {}
        super().close()

    def _run(self, step: Step) -> Read:
        self.prepare()
        with current(self._device):
            return self._replay(step) if self._is_recorded(step) else self._compute_all(step)

    def timed(self, step: Step) -> tuple[StepResult, StepTimes]:
        """Block by block, outside of graphs: a block also has the time in which the device waits for its launch."""
        with current(self._device):
            return super().timed(step)

    def _compute_all(self, step: Step, watch: Stopwatch | None = None) -> Read:
        """Block by block."""
        self._inputs.all_live()
        outputs, taps = self._compute(step, watch)
        logits = outputs.get("logits")
        tokens = None if logits is None else self._draw(step, logits)
        if watch is not None:
            watch.other("drawing tokens")
        if logits is not None and step.fetch is not None:
            logits = self._some(logits, step.fetch)
        return Read(logits, tokens, to_numpy(taps))

    def _is_recorded(self, step: Step) -> bool:
        """Whether it brings one token for each of its sequences, and nothing that the graphs do not take in."""
        return (
            bool(self._replays)
            and step.graph == MAIN
            and len(step.ids) == len(step.past) <= self._buckets[-1]
            and step.draws is not None
            and step.extra.keys() <= BROUGHT
            and len(step.extra.get("features", ())) <= 1  # of no token: a row of zeros comes first
            and step.page_size == self.cache.page_size
        )

    def _replay(self, step: Step) -> Read:
        """By the smallest graph that has room."""
        assert step.draws is not None
        self._tables.update(step)
        self._inputs.fill(step)
        count = len(step.ids)
        rows = next(rows for rows in self._buckets if rows >= count)
        self._replayed += 1
        drawn = self._replays[rows, is_greedy(step.draws)]()
        wanted = step.rows if step.fetch is None else step.rows[step.fetch]
        return Read(self._some(drawn.logits, wanted), drawn.tokens[:count], {})

    @torch.inference_mode()
    def _decodes(self, rows: int, greedy: bool) -> Drawn:
        """A whole step of decodes, from the tokens that come in to those that are drawn. The host waits for nothing."""
        decodes = self._inputs.decodes(rows, self._tables.device, self.cache.page_size)
        inputs = dict.fromkeys(SAID) | {
            "ids": self._inputs.ids(rows, self._last),
            "positions": self._inputs.positions(rows),
            "context": decodes,
            "rows": self._every_row[:rows],
        }
        draws = self._inputs.draws(rows)
        self._output.known = draws.known if greedy else None
        try:
            outputs, _ = self._interpreters[MAIN].run(inputs, {"N": rows, "L": rows})
        finally:
            self._output.known = None
        tokens = draw(outputs["logits"], draws, greedy=greedy, largest=self._output.largest, pdl=self._pdl)
        self._last.index_copy_(0, self._inputs.drawn_seat(rows), tokens.clamp_min(0))  # of no number any token will do
        return Drawn(outputs["logits"], tokens)

    def _input(self, step: Step, value: Value) -> Tensor:
        tensor = super()._input(step, value)
        if value.name != "ids":
            return tensor
        return torch.where(tensor < 0, self._last.index_select(0, self._rows(step.seat)), tensor)

    def _draw(self, step: Step, logits: Tensor) -> Tensor | None:
        """A token for each sequence of a step that is not recorded `[B]`, -1 where none is drawn."""
        if step.draws is None:
            return None
        tokens = torch.full((len(step.past),), NO_NUMBER, dtype=torch.int32, device=self._device)
        places, sequences, ahead = step.drawn_rows
        if len(places):
            draws = step.draws.rows(sequences, ahead)
            chosen, drawn_by = logits.index_select(0, self._rows(places)), device_draws(draws, self._device)
            drawn = draw(chosen, drawn_by, greedy=is_greedy(draws), pdl=self._pdl)
            tokens.index_copy_(0, self._rows(sequences).long(), drawn)
            self._last.index_copy_(0, self._rows(step.seats[sequences]).long(), drawn.clamp_min(0))
        return tokens

    def _some(self, logits: Tensor, rows: npt.NDArray[np.int32]) -> Tensor | None:
        """Those of some rows; None of none, for which nothing need be copied."""
        return logits.index_select(0, self._rows(rows)) if len(rows) else None

    def _rows(self, rows: npt.NDArray[np.int32]) -> Tensor:
        return to_device(rows, self._device)

    def _note(self, note: str) -> None:
        self._report = replace(self._report, notes=(*self._report.notes, note))

    def _free(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0


class Read:
    """A step's results on their way to main memory."""

    def __init__(self, logits: Tensor | None, tokens: Tensor | None, taps: Mapping[str, np.ndarray]) -> None:
        self._logits, self._tokens, self._taps = _fetched(logits), _fetched(tokens), taps
        given = logits if logits is not None else tokens
        self._done = None
        if given is not None and given.is_cuda:
            self._done = torch.cuda.Event()
            self._done.record()

    def result(self) -> StepResult:
        if self._done is not None:
            self._done.synchronize()
        logits, tokens = (None if each is None else each.numpy() for each in (self._logits, self._tokens))
        return StepResult(logits, None if tokens is None else tokens[:, None], taps=self._taps)


def _fetched(tensor: Tensor | None) -> Tensor | None:
    """A copy in main memory, there once the device has come to it; later steps leave it as it is."""
    if tensor is None or not tensor.is_cuda:
        return None if tensor is None else tensor.clone()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def first_of(problem: BaseException) -> BaseException:
    """What went wrong before it did: ending a capture that failed fails too, and hides why."""
    while problem.__context__ is not None:
        problem = problem.__context__
    return problem


def position_columns(lowering: Lowering | None) -> int:
    """How many columns a position has that the graph takes in."""
    inputs = () if lowering is None else lowering.graph.inputs
    return next((value.type.shape({"N": 1})[1] for value in inputs if value.name == "positions"), 1)


def obstacle(lowerings: Mapping[str, Lowering]) -> str | None:
    """Why steps of decodes cannot be recorded, in words; None: they can."""
    if MAIN not in lowerings:
        return f"there is no graph {MAIN!r}"
    graph, taps = lowerings[MAIN].graph, lowerings[MAIN].taps
    if taps:
        return "values of the graph are tapped"
    pieces = sorted({node.op for node in graph.nodes if node.spec.level != "block"} - BETWEEN_BLOCKS)
    if pieces:
        return f"not all blocks are claimed whole: {', '.join(pieces)}"
    others = [value.name for value in graph.inputs if value.name not in SAID]
    if others or "logits" not in dict(graph.outputs):
        return f"the graph takes in {', '.join(others)}" if others else "the graph has no logits"
    return None
