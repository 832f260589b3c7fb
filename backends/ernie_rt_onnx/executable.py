"""The executable: sessions of ONNX Runtime, and a cache of slots that they read and write in place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from ernie_rt.contract import (
    CacheShape,
    Done,
    ExecutableBase,
    Executed,
    Limits,
    Lowering,
    MemoryReport,
    Place,
    Step,
    StepLimits,
    StepResult,
    StepTimes,
    Target,
    WeightSource,
    available_memory,
    check_memory,
    graphs_of,
)
from ernie_rt.writing import temporary_folder
from ernie_rt_onnx.attention import BATCHED, LAST, TOTAL, past_name, present_name
from ernie_rt_onnx.emitter import Emitter
from ernie_rt_onnx.examine import Profiles
from ernie_rt_onnx.library import kernels, library_path, take_reads
from ernie_rt_onnx.memory import Buffer, HostMemory, Memory
from ernie_rt_onnx.model import outputs_of, place, step_emitter, step_model
from ernie_rt_onnx.planner import OnnxPlanner, is_tiled, slots
from ernie_rt_onnx.profile import inlined, read_profile
from ernie_rt_onnx.weights import only_folder, places, read, views

PROFILED_RUNS: Final = 3


class OnnxExecutable(ExecutableBase):
    """A session for each graph over one cache.

    K and V of a layer are `[slots, K, rows, D]`. GroupQueryAttention takes a batch of sequences only when each brings
    one token, and cannot leave a row of the batch idle: hence slots without gaps, and prefills alone.
    """

    def __init__(
        self,
        lowerings: Mapping[str, Lowering],
        source: WeightSource,
        target: Target,
        limits: Limits,
        accuracy_level: int,
        memory: Memory,
    ) -> None:
        rows = limits.max_context
        count = slots(limits)
        self.cache = CacheShape("slots", page_size=rows, pages=count)
        self.admits = StepLimits(limits.max_batch_tokens, count, mixed=False, max_prefills=1)
        emitters = emit_all(lowerings, target, limits, accuracy_level)
        placed = {name: places(emitter.parameters, source) for name, emitter in emitters.items()}
        in_files = {key for found in placed.values() for key in found}
        report = OnnxPlanner().bill(graphs_of(lowerings), target, limits, in_files)
        self._report = replace(report, available=memory.available)
        check_memory(self._report, limits.memory_bytes)
        self._memory = memory
        self._profiles = Profiles() if target.watched else None
        self.caches: dict[str, Buffer] = {}
        for state in (state for lowering in lowerings.values() for state in lowering.graph.states):
            _, _, heads, size = state.type.shape({"R": count * rows})
            for name in (past_name(state, "k"), past_name(state, "v")):
                self.caches[name] = memory.zeros((count, heads, rows, size), state.type.dtype)
        self._programs = {
            name: Program(lowering, emitters[name], placed[name], source, target, memory, self._profiles)
            for name, lowering in lowerings.items()
        }
        self._chosen = self._missing = 0
        """Bytes of experts, all of those and what memory lacked, in all steps."""
        files = {place.path for found in placed.values() for place in found.values()}
        self._is_told = all(os.access(path, os.W_OK) for path in files)
        """Linux says of files that one cannot write that memory lacks nothing of them."""

    def submit(self, step: Step) -> Done:
        result = self._programs[step.graph].run(step, self.caches)
        self._count_reads()
        return Done(result)

    def timed(self, step: Step) -> tuple[StepResult, StepTimes]:
        """By ONNX Runtime's profiler, which a session has from its first moment or never: one is opened for the step,
        which runs a few times in it."""
        program = self._programs[step.graph]
        found = program.timed(step, self.caches) if program.can_be_profiled else super().timed(step)
        self._count_reads()
        return found

    def copy(self, source: int, destination: int, length: int) -> None:
        for cache in self.caches.values():
            self._memory.copy(cache, source, destination, length)

    def read_rows(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8] | None:
        """None where the cache is in memory of a device, which hands out whole slots alone."""
        slots, places = np.divmod(rows, self.cache.page_size)
        parts = []
        for cache in self.caches.values():
            numbers = self._memory.numbers(cache)
            if numbers is None:
                return None
            _, heads, _, size = cache.shape
            parts.append(numbers[slots, :, places].reshape(len(rows), heads * size).view(np.uint8))
        return np.concatenate(parts, axis=1)

    def write_rows(self, rows: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> None:
        slots, places = np.divmod(rows, self.cache.page_size)
        first = 0
        for cache in self.caches.values():
            _, heads, _, size = cache.shape
            last = first + heads * size * cache.dtype.itemsize
            numbers, part = self._memory.numbers(cache), np.ascontiguousarray(data[:, first:last])
            assert numbers is not None
            numbers[slots, :, places] = part.view(cache.dtype).reshape(-1, heads, size)
            first = last

    def _count_reads(self) -> None:
        reads = take_reads()
        self._chosen += reads.chosen
        self._missing += reads.missing

    def memory(self) -> MemoryReport:
        share = self._missing / self._chosen if self._chosen and self._is_told else None
        return replace(self._report, experts_from_disk=share)

    def executed(self) -> Executed | None:
        if self._profiles is None:
            return None
        return self._profiles.executed(program.session for program in self._programs.values())

    def close(self) -> None:
        """A device's memory goes back with the session that it is of."""
        self._programs, self.caches, self._memory = {}, {}, HostMemory()
        if self._profiles is not None:
            self._profiles.close()


def emit_all(
    lowerings: Mapping[str, Lowering], target: Target, limits: Limits, accuracy_level: int
) -> dict[str, Emitter]:
    """The nodes of each graph, and what they need of weights."""
    count, rows = slots(limits), limits.max_context
    bindings = {"P": rows, "R": count * rows, "S": count}
    weights = {weight.name: weight for lowering in lowerings.values() for weight in lowering.graph.weights}
    room = available_memory()
    scarce = room is not None and sum(weight.nbytes() for weight in weights.values() if is_tiled(weight)) > room
    return {
        name: step_emitter(lowering, target.dtype, bindings, accuracy_level, scarce)
        for name, lowering in lowerings.items()
    }


class Program:
    """One graph as a session, with what it is given at every run."""

    def __init__(
        self,
        lowering: Lowering,
        emitter: Emitter,
        placed: Mapping[str, Place],
        source: WeightSource,
        target: Target,
        memory: Memory,
        profiles: Profiles | None,
    ) -> None:
        plain = memory.hands_over(target.dtype)
        inputs = [name for name, parameter in emitter.parameters.items() if plain and not parameter.constant]
        model = step_model(lowering, emitter, inputs)
        constants = emitter.parameters.keys() - inputs
        calls = inlined(emitter.nodes, emitter.functions)
        self._made_for = emitter.made_for | {name: emitter.made_for[call] for name, call in calls.items()}
        self._provider = memory.provider
        self._model, self._options, values = prepared(model, emitter, constants, placed, source, target, memory)
        options = self._options()
        options.add_external_initializers(list(values), list(values.values()))
        if profiles is not None:
            profiles.watch(options)
        self.session = self._provider.start(self._model, options)
        self.can_be_profiled = not values and memory.provider.device == "cpu"
        """Constants that came from no file are gone, and of a device ONNX Runtime tells when work is given to it."""
        self._held = {name: memory.hold(array) for name, array in arrays(emitter, inputs, placed, source)}
        wanted = {value.name for value in self.session.get_inputs()}
        self._fed = {v.name: np.dtype(v.type.dtype) for v in lowering.graph.inputs if v.name in wanted}
        self._batched = wanted & {BATCHED, LAST, TOTAL}
        self._graph = lowering.graph
        self._outputs = {name: value.type for name, value in outputs_of(lowering)}
        self._taps = {f"tap.{scope}": scope for scope, _ in lowering.taps}
        self._caches = {
            past_name(state, part): present_name(state, part) for state in lowering.graph.states for part in ("k", "v")
        }
        self._bind(self.session)

    def _bind(self, session: ort.InferenceSession) -> None:
        self._slots: tuple[int, int] | None = None
        """Which slots of the caches are bound: the first, and how many."""
        self._binding = session.io_binding()
        for name, buffer in self._held.items():
            buffer.read_by(self._binding, name)

    def timed(self, step: Step, caches: Mapping[str, Buffer]) -> tuple[StepResult, StepTimes]:
        """The last of several runs in a session of its own, of which the first ones find its memory."""
        with temporary_folder() as folder:
            options = self._options()
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "step"))
            opened = copy(self)
            opened.session = self._provider.start(self._model, options)
            opened._bind(opened.session)
            for _ in range(PROFILED_RUNS):
                began = time.perf_counter()
                result = opened.run(step, caches)
                seconds = time.perf_counter() - began
            profile = read_profile(Path(opened.session.end_profiling()))
        return result, profile.times(seconds, self._made_for)

    def run(self, step: Step, caches: Mapping[str, Buffer]) -> StepResult:
        binding = self._binding
        # Not all inputs of the graph: attention asks for none of the index arrays that are as long as the context.
        fed = {name: np.ascontiguousarray(step.input(name), dtype) for name, dtype in self._fed.items()}
        if self._batched:
            batch = len(step.past)
            said = {
                BATCHED: np.array([batch, len(step.ids) // batch, -1], np.int64),
                LAST: step.lengths - np.int32(1),
                TOTAL: np.array(step.lengths.max(), np.int32),
            }
            fed |= {name: said[name] for name in self._batched}
        for name, array in fed.items():
            Buffer.of(array).read_by(binding, name)
        slots = (int(step.tables[0, 0]) if self._caches else 0, len(step.past))
        if slots != self._slots:
            for past, present in self._caches.items():
                rows = caches[past].rows(*slots)
                rows.read_by(binding, past)
                rows.written_by(binding, present)
            self._slots = slots
        sizes = step.bindings(self._graph)
        found = {name: np.empty(type.shape(sizes), type.dtype) for name, type in self._outputs.items()}
        for name, array in found.items():
            Buffer.of(array).written_by(binding, name)
        self.session.run_with_iobinding(binding)
        return StepResult(found.get("logits"), taps={scope: found[name] for name, scope in self._taps.items()})


def prepared(
    model: onnx.ModelProto,
    emitter: Emitter,
    constants: Collection[str],
    placed: Mapping[str, Place],
    source: WeightSource,
    target: Target,
    memory: Memory,
) -> tuple[bytes, Callable[[], ort.SessionOptions], dict[str, ort.OrtValue]]:
    """A model whose parameters that are `constants` lie in mapped files, where they are `placed` in one folder; what
    makes the options of a session of it; and the other constants by name, which that has to be given."""
    fixed = {name: at for name, at in placed.items() if name in constants}
    folder = only_folder(fixed.values())
    if folder is None:
        fixed = {}
    parameters = {name: each for name, each in emitter.parameters.items() if name in constants and name not in fixed}
    held = {name: read(parameter, source, emitter.bindings) for name, parameter in parameters.items()}
    for constant in model.graph.initializer:
        if constant.name in fixed:
            at = fixed[constant.name]
            place(constant, at.path.name, at.offset, at.nbytes)
        elif constant.data_location:
            place(constant, "memory", 0, held[constant.name].nbytes)
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in held.items()}
    return model.SerializeToString(), partial(session_options, target, memory.runs_library, folder), values


def session_options(target: Target, runs_library: bool, folder: Path | None) -> ort.SessionOptions:
    """With the library of operators, where it runs, and the folder of files that a model names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads or 0
    path = library_path()
    if runs_library and path is not None and kernels() is not None:
        options.register_custom_ops_library(str(path))
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return options


def arrays(
    emitter: Emitter, names: Collection[str], placed: Mapping[str, Place], source: WeightSource
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Parameters by name, one after the other: from mapped files, where they are `placed`, or read."""
    parameters = emitter.parameters
    mapped = views(parameters, {name: at for name, at in placed.items() if name in names})
    for name in names:
        yield name, mapped[name] if name in mapped else read(parameters[name], source, emitter.bindings)
