"""The model-local functions of domain `ernie_rt`: what ONNX Runtime lacks, said in operators that it has.

Each stands for a composite of the graph, so a library that registers a kernel of the same name replaces all of it;
without one ONNX Runtime inlines the body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper

DOMAIN: Final = "ernie_rt"

MASKED: Final = -1e4
"""The score of an expert that is not chosen: float16 holds it, and its exponential is 0."""

SWIGLU: Final[Mapping[str, Any]] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,  # gate and up in turn, the only order that the CPU knows
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    # They sum to 1 already. With 0, CPU MoE before 1.32 loses its input where it shares memory with its output, as it
    # does between operators of known shapes: github.com/microsoft/onnxruntime/issues/33866.
    "normalize_routing_weights": 1,
}
QUANTIZATION: Final = ("bits", "block_size", "accuracy_level")


def moe() -> FunctionProto:
    """`moe` with plain experts: x `[N, H]`, router `[E, H]` and correction_bias `[E]` float32, gate_up `[E, 2I, H]`,
    gate and up in turn, down `[E, H, I]`."""
    experts = _node("MoE", ["x", "masked", "gate_up", "", "down"], "y", {"k": "top_k"}, **SWIGLU)
    return _function("MoE", ["x", "router", "correction_bias", "gate_up", "down"], [*_route(), experts], ["top_k"])


def qmoe() -> FunctionProto:
    """`moe` with experts in blocks: their codes `[E, 2I, H * bits / 8]`, `[E, H, I * bits / 8]` in MatMulNBits' order,
    scales `[E, 2I, H / block_size]`, `[E, H, I / block_size]` in float16, as they are stored.

    The stock operator wants them in x's dtype: a cast of constants, which ONNX Runtime does once, when it loads.
    """
    references = {"k": "top_k", "expert_weight_bits": "bits", "block_size": "block_size"}
    scales = [_node("CastLike", [name, "x"], f"{name}_like_x") for name in ("gate_up_scales", "down_scales")]
    experts = _node(
        "QMoE",
        ["x", "masked", "gate_up", "gate_up_scales_like_x", "", "down", "down_scales_like_x"],
        "y",
        references | {"accuracy_level": "accuracy_level"},
        weights_prepacked=0,  # what it is by default differs between CPU and CUDA
        **SWIGLU,
    )
    inputs = ["x", "router", "correction_bias", "gate_up", "gate_up_scales", "down", "down_scales"]
    return _function("QMoE", inputs, [*_route(), *scales, experts], ["top_k", *QUANTIZATION])


FUNCTIONS: Final[Mapping[str, Callable[[], FunctionProto]]] = MappingProxyType({"MoE": moe, "QMoE": qmoe})


def _route() -> list[NodeProto]:
    """Scores `masked` whose softmax, within MoE, are the routing weights: log p of the experts chosen, beside -1e4.

    The softmax of the chosen logits alone is p over the sum of the chosen p. The largest becomes 0, so that a narrow
    dtype rounds least where the weight is most.
    """
    return [
        _node("Cast", ["x"], "wide", to=TensorProto.FLOAT),
        _node("Transpose", ["router"], "columns", perm=[1, 0]),
        _node("MatMul", ["wide", "columns"], "logits"),
        _node("Softmax", ["logits"], "probabilities", axis=-1),
        _node("Add", ["probabilities", "correction_bias"], "scores"),
        _node("Constant", [], "count", {"value_int": "top_k"}),
        _node("Constant", [], "last", value_ints=[1]),
        _node("Reshape", ["count", "last"], "counts"),
        helper.make_node("TopK", ["scores", "counts"], ["best", "chosen"], name="TopK", axis=-1),
        _node("GatherElements", ["logits", "chosen"], "kept", axis=1),
        _node("ReduceMax", ["kept", "last"], "largest", keepdims=1),
        _node("Sub", ["kept", "largest"], "shifted"),
        _node("Shape", ["logits"], "shape"),
        _node("ConstantOfShape", ["shape"], "nothing", value=numpy_helper.from_array(np.array([MASKED], np.float32))),
        _node("ScatterElements", ["nothing", "chosen", "shifted"], "wide_masked", axis=1),
        _node("CastLike", ["wide_masked", "x"], "masked"),
    ]


def _node(
    op: str, inputs: list[str], output: str, references: Mapping[str, str] | None = None, **attrs: Any
) -> NodeProto:
    """A node whose further attributes are those of the function, by its names for them."""
    domain = "" if onnx.defs.has(op) else "com.microsoft"
    node = helper.make_node(op, inputs, [output], name=f"{op}.{output}", domain=domain, **attrs)
    for name, outer in (references or {}).items():
        node.attribute.add(name=name, ref_attr_name=outer, type=AttributeProto.INT)
    return node


def _function(name: str, inputs: list[str], nodes: list[NodeProto], attributes: list[str]) -> FunctionProto:
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_function(DOMAIN, name, inputs, ["y"], nodes, opsets, attributes)
