"""The backend and its executable: sessions of ONNX Runtime, and a cache of slots that they read and write in place."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from ernie_rt.contract import (
    Accept,
    BackendBase,
    BlockQuantized,
    CacheShape,
    Done,
    DType,
    ExecutableBase,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    Place,
    Reject,
    Step,
    StepLimits,
    StepResult,
    Storage,
    Target,
    Weight,
    WeightSource,
    available_memory,
    check_memory,
)
from ernie_rt_onnx import tiled
from ernie_rt_onnx.emit import BATCHED, EMIT, LAST, TOTAL, past_name, present_name
from ernie_rt_onnx.emitter import Emitter, is_tiled
from ernie_rt_onnx.library import kernels, library_path, take_reads
from ernie_rt_onnx.model import outputs_of, place, step_emitter, step_model
from ernie_rt_onnx.runtime import check_runtime
from ernie_rt_onnx.weights import only_folder, places, read, views

ACCURACY_LEVEL: Final = 4
"""Of MatMulNBits and QMoE: int8 activations. With float32 ones int8 weights take a hundred times as long."""

ATTENTIONS: Final = frozenset({"attention", "rope_attention", "attention_block"})

HEAD_MULTIPLE: Final = 16

LARGEST_NORM_MIN: Final = 1e-9
"""What the probabilities of chosen experts never sum to; ERNIE 4.5 has 1e-12."""

CACHE_LINE: Final = 64

QUIET: Final = 3
"""ONNX Runtime says errors alone; what it warns of is its own affair."""


class OnnxBackend(BackendBase):
    """Claims the composites; blocks decompose. BackendError where ONNX Runtime is too old for it."""

    def __init__(self) -> None:
        check_runtime()

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        if node.op == "cache_update" or head_dim(node) % HEAD_MULTIPLE:
            return Reject(
                f"only GroupQueryAttention writes a cache, and its heads are of a multiple of {HEAD_MULTIPLE}"
            )
        if node.op in ATTENTIONS and node.operands["state"] is None:
            return Reject("GroupQueryAttention has a cache")
        if node.op in ATTENTIONS and "positions" in node.operands and node.operands["positions"] is None:
            return Reject("GroupQueryAttention rotates by the rows of a table")
        in_tiles = tiled.is_in_tiles(node)
        if node.op not in (tiled.EMIT if in_tiles else EMIT):
            return Reject("no few operators of ONNX Runtime, nor one of ours without weights in tiles")
        packed = any(isinstance(each, Weight) and each.storage.packed for each in node.inputs)
        if packed and node.op not in tiled.EMIT:
            return Reject("weights in blocks are read by linears, rows and experts alone")
        experts = [node.operands[name] for name in tiled.EXPERTS if name in node.operands]
        if len({each.storage for each in experts if isinstance(each, Weight)}) > 1:
            return Reject("the two matrices of its experts are stored in different ways")
        if node.op == "moe" and not in_tiles and cast(float, node.attributes["norm_min"]) > LARGEST_NORM_MIN:
            return Reject("MoE divides by what the weights sum to, however little")
        return Accept()

    def accepts(self, storage: Storage, target: Target) -> bool:
        """Tiles are the library's, which computes in float32."""
        if not isinstance(storage, BlockQuantized):
            return False
        return storage.layout == "raw" or (target.dtype == "float32" and kernels() is not None)

    def numerics(self, target: Target) -> Numerics:
        wide = OpNumerics("float32", "float32")
        return Numerics(OpNumerics(target.dtype, "float32", "int8"), {"moe_route": wide, "rms_norm": wide})

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        return _bill(_emit(lowerings, target, limits, ACCURACY_LEVEL), lowerings)

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> OnnxExecutable:
        return OnnxExecutable(lowerings, weights, target, limits, ACCURACY_LEVEL)


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
    ) -> None:
        rows = limits.max_context
        slots = limits.max_sequences
        if limits.cache_tokens is not None:
            slots = max(1, min(slots, limits.cache_tokens // rows))
        self.cache = CacheShape("slots", page_size=rows, pages=slots)
        self.admits = StepLimits(limits.max_batch_tokens, slots, mixed=False, max_prefills=1)
        emitters = _emit(lowerings, target, limits, accuracy_level)
        placed = {name: places(emitter.parameters, source) for name, emitter in emitters.items()}
        self._report = _bill(emitters, lowerings, placed)
        check_memory(self._report, limits.memory_bytes)
        self.caches: dict[str, npt.NDArray[Any]] = {}
        for state in (state for lowering in lowerings.values() for state in lowering.graph.states):
            _, _, heads, size = state.type.shape({"R": slots * rows})
            for name in (past_name(state, "k"), past_name(state, "v")):
                self.caches[name] = zeros((slots, heads, rows, size), state.type.dtype)
        self._programs = {
            name: Program(lowering, emitters[name], placed[name], source, target)
            for name, lowering in lowerings.items()
        }
        self._chosen = self._missing = 0
        """Bytes of experts, all of those and what memory lacked, in all steps."""
        files = {place.path for found in placed.values() for place in found.values()}
        self._is_told = all(os.access(path, os.W_OK) for path in files)
        """Linux says of files that one cannot write that memory lacks nothing of them."""

    def submit(self, step: Step) -> Done:
        result = self._programs[step.graph].run(step, self.caches)
        reads = take_reads()
        self._chosen += reads.chosen
        self._missing += reads.missing
        return Done(result)

    def copy(self, source: int, destination: int, length: int) -> None:
        for cache in self.caches.values():
            cache[destination, :, :length] = cache[source, :, :length]

    def memory(self) -> MemoryReport:
        share = self._missing / self._chosen if self._chosen and self._is_told else None
        return replace(self._report, experts_from_disk=share)

    def close(self) -> None:
        self._programs, self.caches = {}, {}


class Program:
    """One graph as a session, with what it is given at every run."""

    def __init__(
        self,
        lowering: Lowering,
        emitter: Emitter,
        placed: Mapping[str, Place],
        source: WeightSource,
        target: Target,
    ) -> None:
        inputs = [
            name
            for name, parameter in emitter.parameters.items()
            if not parameter.constant and target.dtype == "float32"
        ]
        model = step_model(lowering, emitter, inputs)
        self._session, held = open_session(model, emitter, inputs, placed, source, target)
        self._held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in held.items()}
        wanted = {value.name for value in self._session.get_inputs()}
        self._fed = {v.name: np.dtype(v.type.dtype) for v in lowering.graph.inputs if v.name in wanted}
        self._batched = wanted & {BATCHED, LAST, TOTAL}
        self._graph = lowering.graph
        self._outputs = {name: value.type for name, value in outputs_of(lowering)}
        self._taps = {f"tap.{scope}": scope for scope, _ in lowering.taps}
        self._caches = {
            past_name(state, part): present_name(state, part) for state in lowering.graph.states for part in ("k", "v")
        }
        self._slots: tuple[int, int] | None = None
        """Which slots of the caches are bound: the first, and how many."""
        self._binding = self._session.io_binding()
        for name, value in self._held.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self, step: Step, caches: Mapping[str, npt.NDArray[Any]]) -> StepResult:
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
            binding.bind_cpu_input(name, array)
        slots = (int(step.tables[0, 0]) if self._caches else 0, len(step.past))
        if slots != self._slots:
            for past, present in self._caches.items():
                rows = caches[past][slots[0] : sum(slots)]
                binding.bind_input(past, "cpu", 0, rows.dtype.type, rows.shape, rows.ctypes.data)
                binding.bind_output(present, "cpu", 0, rows.dtype.type, rows.shape, rows.ctypes.data)
            self._slots = slots
        sizes = step.bindings(self._graph)
        found = {name: np.empty(type.shape(sizes), type.dtype) for name, type in self._outputs.items()}
        for name, array in found.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
        return StepResult(found.get("logits"), taps={scope: found[name] for name, scope in self._taps.items()})


def open_session(
    model: onnx.ModelProto,
    emitter: Emitter,
    inputs: Collection[str],
    placed: Mapping[str, Place],
    source: WeightSource,
    target: Target,
) -> tuple[ort.InferenceSession, dict[str, npt.NDArray[Any]]]:
    """A session that has the constants of a model, those that are `placed` from mapped files, and what to give it as
    `inputs`."""
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = target.threads or 0
    path = library_path()
    if path is not None and kernels() is not None:
        options.register_custom_ops_library(str(path))
    parameters = emitter.parameters
    fixed = {name: at for name, at in placed.items() if name not in inputs}
    folder = only_folder(fixed.values())
    if folder is None:
        fixed = {}
    else:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    held = views(parameters, {name: at for name, at in placed.items() if name in inputs})
    for name, parameter in parameters.items():
        if name not in held and name not in fixed:
            held[name] = read(parameter, source, emitter.bindings)
    for constant in model.graph.initializer:
        if constant.name in fixed:
            at = fixed[constant.name]
            place(constant, at.path.name, at.offset, at.nbytes)
        elif constant.data_location:
            place(constant, "memory", 0, held[constant.name].nbytes)
    constants = [name for name in held if name not in inputs]
    options.add_external_initializers(constants, [ort.OrtValue.ortvalue_from_numpy(held[name]) for name in constants])
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, {name: held[name] for name in inputs}


def zeros(shape: tuple[int, ...], dtype: DType) -> npt.NDArray[Any]:
    """An array that begins with a cache line: of one that does not, wide vectors lie across two, and are read in twice
    the time. Its memory is taken when it is first touched."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    flat = np.zeros(size + CACHE_LINE, np.uint8)
    start = -flat.ctypes.data % CACHE_LINE
    return flat[start : start + size].view(dtype).reshape(shape)


def head_dim(node: Node) -> int:
    """The size of an attention's heads; 0 for other nodes."""
    if node.op not in ATTENTIONS:
        return 0
    query = node.operands.get("q")
    size = query.type.dims[-1] if query is not None else node.attributes["head_dim"]
    assert isinstance(size, int)
    return size


def _emit(lowerings: Mapping[str, Lowering], target: Target, limits: Limits, accuracy_level: int) -> dict[str, Emitter]:
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


def _bill(
    emitters: Mapping[str, Emitter],
    lowerings: Mapping[str, Lowering],
    placed: Mapping[str, Collection[str]] | None = None,
) -> MemoryReport:
    """What a model takes; `placed` are the parameters of each graph that lie in files, None those that may.

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
    return MemoryReport(sum(weights.values()), sum(states.values()), mapped_bytes=sum(mapped.values()))
