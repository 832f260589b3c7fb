"""A throwaway backend on ONNX Runtime's own operators, to try the contract with slots: float32, CPU.

GroupQueryAttention keeps K and V in one contiguous region a sequence. It takes a batch only when each sequence brings
one token, cannot leave a row of the batch idle, and takes several tokens after a past for one sequence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ernie_rt.backend import (
    Accept,
    BackendInfo,
    CacheShape,
    Done,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    Reject,
    Step,
    StepLimits,
    StepResult,
    Target,
    WeightSource,
    check_memory,
)
from ernie_rt.graph.types import Operand, State, Storage, Value, Weight
from ernie_rt.hooks import PLUGIN_API, hookimpl

__all__ = ["PLUGIN_API", "ernie_rt_backends"]

MASKED = -1e4


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    summary = "ONNX Runtime's own operators, float32"
    return [BackendInfo("onnx-slots", f"{__name__}:OnnxBackend", summary, {"cpu": ("float32",)})]


class OnnxBackend:
    def __init__(self) -> None:
        self.executables: list[OnnxExecutable] = []

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        return Accept() if node.op in EMIT else Reject("no single operator of ONNX Runtime")

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def numerics(self, target: Target) -> Numerics:
        return Numerics(OpNumerics("float32", "float32"))

    def compile(
        self,
        lowerings: Mapping[str, Lowering],
        weights: WeightSource,
        target: Target,
        limits: Limits,
    ) -> OnnxExecutable:
        (lowering,) = lowerings.values()
        self.executables.append(OnnxExecutable(lowering, weights, limits))
        return self.executables[-1]


class OnnxExecutable:
    samples = False

    def __init__(self, lowering: Lowering, source: WeightSource, limits: Limits) -> None:
        graph = lowering.graph
        slots, context = limits.max_sequences, limits.max_context
        self.cache = CacheShape("slots", page_size=context, pages=slots)
        self.admits = StepLimits(limits.max_batch_tokens, slots, mixed=False, max_prefills=1)
        bindings = {"P": context, "R": slots * context}
        self._report = MemoryReport(
            weight_bytes=sum(weight.type.nbytes(bindings) for weight in graph.weights),
            cache_bytes=sum(state.type.nbytes(bindings) for state in graph.states),
        )
        check_memory(self._report, limits.memory_bytes)
        self._taps = [name for name, _ in lowering.taps]
        model = Emitter(lowering, source, bindings).model()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._caches: dict[str, np.ndarray] = {}
        for state in graph.states:
            _, _, heads, size = state.type.shape(bindings)
            for part in ("k", "v"):  # NaN: a row that is read before it is written shows
                self._caches[f"{state.name}.{part}"] = np.full((slots, heads, context, size), np.nan, np.float32)
        self.steps: list[Step] = []
        self.copies: list[tuple[int, int, int]] = []

    def submit(self, step: Step) -> Done:
        self.steps.append(step)
        slots, batch = step.tables[:, 0], len(step.past)
        if batch > 1:
            assert (step.new == 1).all() and slots.tolist() == list(range(batch)), "what GroupQueryAttention refuses"
        first = int(slots[0])
        binding = self._session.io_binding()
        binding.bind_cpu_input("ids", step.ids)
        binding.bind_cpu_input("rows", step.rows)
        binding.bind_cpu_input("batched", np.array([batch, len(step.ids) // batch, -1], np.int64))
        binding.bind_cpu_input("last", step.lengths - 1)
        binding.bind_cpu_input("total", np.array(step.lengths.max(), np.int32))
        for name, cache in self._caches.items():
            rows = cache[first : first + batch]
            for bind, side in ((binding.bind_input, "past"), (binding.bind_output, "present")):
                bind(f"{side}.{name}", "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
        for name in ("logits", *self._taps):
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *taps = (value.numpy() for value in binding.get_outputs()[len(self._caches) :])
        return Done(StepResult(logits=logits, taps=dict(zip(self._taps, taps, strict=True))))

    def copy(self, source: int, destination: int, length: int) -> None:
        self.copies.append((source, destination, length))
        for cache in self._caches.values():
            cache[destination, :, :length] = cache[source, :, :length]
            cache[source] = np.nan

    def memory(self) -> MemoryReport:
        return self._report

    def close(self) -> None:
        self._caches = {}


class Emitter:
    """Writes an ONNX model, node by node."""

    def __init__(self, lowering: Lowering, source: WeightSource, bindings: Mapping[str, int]) -> None:
        self.lowering = lowering
        self.source = source
        self.bindings = bindings
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        graph = self.lowering.graph
        for node in graph.nodes:
            outputs = [f"%{value.name}" for value in node.outputs]
            EMIT[node.op](self, *node.inputs, out=outputs[0], **node.attributes)
        named = [("logits", graph.output("logits")), *self.lowering.taps]
        for name, value in named:
            self("Identity", f"%{value.name}", out=name)
        ints = {"ids": ["N"], "rows": ["L"], "last": ["B"], "total": []}
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, dims) for name, dims in ints.items()]
        inputs.append(helper.make_tensor_value_info("batched", TensorProto.INT64, [3]))
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name, _ in named]
        for state in graph.states:
            _, _, heads, size = state.type.dims
            for part in ("k", "v"):
                dims = ["B", heads, "S", size]
                name = f"{state.name}.{part}"
                inputs.append(helper.make_tensor_value_info(f"past.{name}", TensorProto.FLOAT, dims))
                outputs.append(helper.make_tensor_value_info(f"present.{name}", TensorProto.FLOAT, dims))
        built = helper.make_graph(self.nodes, graph.name, inputs, outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(built, opset_imports=opsets, ir_version=10)

    def __call__(self, op: str, *inputs: str, out: str | None = None, outputs: int = 1, **attrs: Any) -> str:
        """Append a node and return the name of its first output; further ones are `name.1`, ….

        Operators that ONNX lacks are Microsoft's.
        """
        out = out or f"{op}_{len(self.nodes)}"
        names = [out, *(f"{out}.{i}" for i in range(1, outputs))]
        domain = "" if onnx.defs.has(op) else "com.microsoft"
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attrs))
        return out

    def name(self, operand: Operand) -> str:
        match operand:
            case None:
                return ""
            case Weight():
                return self.weight(operand)
            case Value(name) if name in ("ids", "rows"):
                return name
            case Value(name):
                return f"%{name}"
            case State():
                raise AssertionError("states are named part by part")

    def weight(self, weight: Weight, *dims: int) -> str:
        """The initializer of a weight, under other dims if given."""
        name = f"@{weight.name}{list(dims) or ''}"
        if name not in self.initializers:
            array = np.empty(weight.type.shape(self.bindings), np.float32)
            self.source.fill(weight, "data", array)
            self.initializers[name] = onnx.numpy_helper.from_array(array.reshape(dims or array.shape), name)
        return name

    def constant(self, value: Any, dtype: type[np.generic]) -> str:
        name = f"const_{len(self.initializers)}"
        self.initializers[name] = onnx.numpy_helper.from_array(np.array(value, dtype), name)
        return name


def take_rows(e: Emitter, table: Operand, ids: Operand, *, out: str) -> None:
    e("Gather", e.name(table), e.name(ids), axis=0, out=out)


def add(e: Emitter, a: Operand, b: Operand, *, out: str) -> None:
    e("Add", e.name(a), e.name(b), out=out)


def cast(e: Emitter, x: Operand, *, dtype: str, out: str) -> None:
    e("Cast", e.name(x), to=TensorProto.FLOAT, out=out)


def rms_norm(e: Emitter, x: Operand, weight: Operand, *, eps: float, out: str) -> None:
    e("RMSNormalization", e.name(x), e.name(weight), axis=-1, epsilon=eps, out=out)


def linear(e: Emitter, x: Operand, weight: Operand, bias: Operand, *, out: str) -> None:
    assert isinstance(weight, Weight) and (bias is None or isinstance(bias, Weight))
    *dims, hidden = weight.type.shape(e.bindings)
    y = e("FusedMatMul", e.name(x), e.weight(weight, -1, hidden), transB=1)
    y = e("Reshape", y, e.constant([-1, *dims], np.int64))
    e("Identity", y, out=out) if bias is None else e("Add", y, e.weight(bias), out=out)


def swiglu(e: Emitter, x: Operand, *, out: str) -> None:
    gate, up = (e("Gather", e.name(x), e.constant(i, np.int64), axis=-1) for i in (0, 1))
    e("Mul", e("Mul", gate, e("Sigmoid", gate)), up, out=out)


def rope_attention(
    e: Emitter,
    qkv: Operand,
    cos: Operand,
    sin: Operand,
    state: Operand,
    *indices: Operand,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    out: str,
) -> None:
    assert isinstance(state, State)
    packed = e("Reshape", e.name(qkv), "batched")
    past = [f"past.{state.name}.{part}" for part in ("k", "v")]
    result = f"{out}.batched"
    e.nodes.append(
        helper.make_node(
            "GroupQueryAttention",
            [packed, "", "", *past, "last", "total", e.name(cos), e.name(sin)],
            [result, *(f"present.{state.name}.{part}" for part in ("k", "v"))],
            domain="com.microsoft",
            num_heads=num_heads,
            kv_num_heads=num_kv_heads,
            scale=scale,
            do_rotary=1,
            rotary_interleaved=1,
        )
    )
    e("Reshape", result, e.constant([-1, num_heads * head_dim], np.int64), out=out)


def moe(
    e: Emitter,
    x: Operand,
    gate: Operand,
    correction_bias: Operand,
    gate_up: Operand,
    down: Operand,
    *,
    top_k: int,
    norm_min: float,
    out: str,
) -> None:
    """All but the chosen logits are masked, so the softmax within MoE gives p_i over the sum of the chosen p."""
    assert isinstance(gate, Weight) and isinstance(gate_up, Weight)
    logits = e("FusedMatMul", e.name(x), e.weight(gate), transB=1)
    scores = e("Softmax", logits, axis=-1)
    if correction_bias is not None:
        scores = e("Add", scores, e.name(correction_bias))
    top = e("TopK", scores, e.constant([top_k], np.int64), axis=-1, outputs=2)
    low = e("Expand", e.constant(MASKED, np.float32), e("Shape", logits))
    masked = e("ScatterElements", low, f"{top}.1", e("GatherElements", logits, f"{top}.1", axis=1), axis=1)
    experts, width, _, hidden = gate_up.type.shape()
    rows = e.weight(gate_up, experts, 2 * width, hidden)  # gate and up in turn, as they lie
    e(
        "MoE", e.name(x), masked, rows, "", e.name(down), out=out,
        k=top_k, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0, activation_beta=0.0,
    )  # fmt: skip


EMIT: Mapping[str, Callable[..., None]] = {
    function.__name__: function for function in (take_rows, add, cast, rms_norm, linear, swiglu, rope_attention, moe)
}
