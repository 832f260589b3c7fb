"""The backend: what ONNX Runtime runs of a graph, on the CPU or by its CUDA provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, cast

from ernie_rt.contract import (
    Accept,
    BackendBase,
    Finding,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    Reject,
    Storage,
    Target,
    Weight,
    WeightSource,
    graphs_of,
)
from ernie_rt_onnx import cuda, examine, tiled
from ernie_rt_onnx.emit import EMIT
from ernie_rt_onnx.executable import OnnxExecutable
from ernie_rt_onnx.memory import DeviceMemory, HostMemory, Memory
from ernie_rt_onnx.planner import OnnxPlanner, on_gpu
from ernie_rt_onnx.runtime import check_runtime

PLANNER: Final = OnnxPlanner()

ACCURACY_LEVEL: Final = 4
"""Of MatMulNBits and QMoE: int8 activations. With float32 ones int8 weights take a hundred times as long."""

ATTENTIONS: Final = frozenset({"attention", "rope_attention", "attention_block"})

HEAD_MULTIPLE: Final = 16

LARGEST_NORM_MIN: Final = 1e-9
"""What the probabilities of chosen experts never sum to; ERNIE 4.5 has 1e-12."""

EXPERT_MULTIPLES: Final[Mapping[bool, int]] = {False: 8, True: 64}
"""Of the sizes of experts on CUDA, plain ones and those in blocks: its kernels read 16 bytes at once, and 64 codes."""
LEAST_EXPERT: Final = 16
"""The least size of experts on CUDA."""


class OnnxBackend(BackendBase):
    """Claims the composites; blocks decompose. BackendError where ONNX Runtime is too old for it."""

    def __init__(self) -> None:
        check_runtime()

    def devices(self) -> tuple[str, ...]:
        """The CPU first: GPUs are for who asks for one, or for `auto`, which does."""
        return ("cpu", *cuda.devices())

    def lacking(self, kind: str) -> str | None:
        return cuda.lacking() if kind == "cuda" else None

    def not_deterministic(self, target: Target) -> str | None:
        return "its attention sums in another order where more tokens of a prompt enter at once"

    def examine(self, target: Target) -> Iterator[Finding]:
        if not on_gpu(target):
            yield from examine.library()
            yield from examine.gpu()

    def claims(self, node: Node, target: Target) -> Accept | Reject:
        without_cache = node.op in ATTENTIONS and node.operands["state"] is None
        if node.op == "cache_update" or (head_dim(node) % HEAD_MULTIPLE and not without_cache):
            return Reject(
                f"only GroupQueryAttention writes a cache, and its heads are of a multiple of {HEAD_MULTIPLE}"
            )
        if without_cache and not sees_all(node):
            return Reject("without a cache MultiHeadAttention has a key head for each query head, and no order")
        in_tiles = tiled.is_in_tiles(node)
        if node.op not in (tiled.EMIT if in_tiles else EMIT):
            return Reject(
                "no operator does it whole: none of ONNX Runtime, and none of ours for weights stored like these"
            )
        packed = any(isinstance(each, Weight) and each.storage.packed for each in node.inputs)
        if packed and node.op not in tiled.EMIT:
            sizes = f", of sizes that {EXPERT_MULTIPLES[True]} divides" if on_gpu(target) else ""
            return Reject(f"weights in blocks are read by linears, rows and experts alone{sizes}")
        experts = [node.operands[name] for name in tiled.EXPERTS if name in node.operands]
        if len({each.storage for each in experts if isinstance(each, Weight)}) > 1:
            return Reject("the two matrices of its experts are stored in different ways")
        if node.op == "moe" and not in_tiles and cast(float, node.attributes["norm_min"]) > LARGEST_NORM_MIN:
            return Reject("MoE divides by what the weights sum to, however little")
        multiple = EXPERT_MULTIPLES[packed]
        if on_gpu(target) and any(size % multiple or size < LEAST_EXPERT for size in expert_sizes(node)):
            experts_op = "QMoE" if packed else "MoE"
            return Reject(f"on CUDA the sizes of {experts_op} are multiples of {multiple}, {LEAST_EXPERT} at least")
        return Accept()

    def accepts(self, storage: Storage, target: Target) -> bool:
        return PLANNER.accepts(storage, target)

    def numerics(self, target: Target) -> Numerics:
        wide = OpNumerics("float32", "float32")
        default = OpNumerics(target.dtype, "float32", None if on_gpu(target) else "int8")
        return Numerics(default, {"moe_route": wide, "rms_norm": wide, "layer_norm": wide})

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        available = cuda.free_memory(target.device) if on_gpu(target) else None
        return replace(PLANNER.bill(graphs_of(lowerings), target, limits), available=available)

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> OnnxExecutable:
        memory: Memory = HostMemory()
        if on_gpu(target):
            memory = DeviceMemory(cuda.provider(target.device), cuda.free_memory(target.device))
        return OnnxExecutable(lowerings, weights, target, limits, ACCURACY_LEVEL, memory)


def sees_all(node: Node) -> bool:
    """Whether tokens see all of their sequence in attention whose heads are all alike, rotated by a row for each."""
    q, k = node.operands.get("q"), node.operands.get("k")
    if q is not None and k is not None:
        alike = q.type.dims == k.type.dims
    else:
        alike = node.attributes["num_heads"] == node.attributes["num_kv_heads"]
    return alike and node.operands["index"] is None and node.operands.get("positions") is None


def expert_sizes(node: Node) -> tuple[int, int] | tuple[()]:
    """The sizes I and H of a node's routed experts, if it has any."""
    experts = node.operands.get("experts_gate_up")
    if experts is None:
        return ()
    _, width, _, hidden = experts.type.dims
    assert isinstance(width, int) and isinstance(hidden, int)
    return width, hidden


def head_dim(node: Node) -> int:
    """The size of an attention's heads; 0 for other nodes."""
    if node.op not in ATTENTIONS:
        return 0
    query = node.operands.get("q")
    size = query.type.dims[-1] if query is not None else node.attributes["head_dim"]
    assert isinstance(size, int)
    return size
