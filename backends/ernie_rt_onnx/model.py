"""From a lowered graph to an ONNX model: for the backend's own steps, or in the form that others drive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper

from ernie_rt.contract import DType, Graph, Lowering, TensorType, Value
from ernie_rt_onnx import tiled
from ernie_rt_onnx.attention import BATCHED, LAST, TOTAL, past_name, present_name
from ernie_rt_onnx.emit import EMIT
from ernie_rt_onnx.emitter import ELEMENT_TYPES, IR_VERSION, OPSETS, Emitter
from ernie_rt_onnx.genai import ATTENTION_MASK, INPUT_IDS, LOGITS
from ernie_rt_onnx.library import kernels
from ernie_rt_onnx.mask import emit_mask
from ernie_rt_onnx.planner import is_tiled

NEVER: Final = -1e30
"""The logit of an id that is no token: finite, for whoever multiplies by zero."""


def emit(emitter: Emitter, graph: Graph) -> None:
    """Write the nodes of a lowered graph."""
    for node in graph.nodes:
        first = len(emitter.nodes)
        outputs = tuple(emitter.name(value) for value in node.outputs)
        table = tiled.EMIT if any(map(is_tiled, node.inputs)) else EMIT
        table[node.op](emitter, *node.inputs, out=outputs[0] if len(outputs) == 1 else outputs, **node.attributes)
        emitter.made_for.update((written.name, node.outputs[0].name) for written in emitter.nodes[first:])


def step_emitter(
    lowering: Lowering, dtype: DType, bindings: Mapping[str, int], accuracy_level: int, scarce: bool
) -> Emitter:
    """The nodes of a lowered graph with its outputs and taps under their names."""
    emitter = Emitter(dtype, bindings, accuracy_level, kernels() is not None, scarce)
    emit(emitter, lowering.graph)
    for name, value in outputs_of(lowering):
        emitter("Identity", emitter.name(value), out=name)
    return emitter


def outputs_of(lowering: Lowering) -> list[tuple[str, Value]]:
    """What a graph gives by name: its outputs, and its taps under `tap.` and their scopes."""
    return [*lowering.graph.outputs, *((f"tap.{scope}", value) for scope, value in lowering.taps)]


def step_model(lowering: Lowering, emitter: Emitter, inputs: Iterable[str]) -> onnx.ModelProto:
    """The model that the backend's executable runs; the parameters named in `inputs` are handed over at every run."""
    graph = lowering.graph
    used = {name for node in emitter.nodes for name in node.input}
    values = [tensor(value.name, value.type) for value in graph.inputs if value.name in used]
    batch = (
        helper.make_tensor_value_info(BATCHED, onnx.TensorProto.INT64, [3]),
        tensor(LAST, TensorType("int32", ("B",))),
        tensor(TOTAL, TensorType("int32", ())),
    )
    values += [value for value in batch if value.name in used]
    values += [
        helper.make_tensor_value_info(name, ELEMENT_TYPES[parameter.dtype], parameter.dims)
        for name in inputs
        for parameter in (emitter.parameters[name],)
    ]
    outputs = [tensor(name, value.type) for name, value in outputs_of(lowering)]
    pasts, presents = cache_values(graph, "B", "S", "S")
    return assemble(graph.name, emitter, values + pasts, outputs + presents, inputs)


def cache_values(
    graph: Graph, batch: str, past: str, present: str
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """K and V of each layer, as inputs `[B, K, past, D]` and as outputs `[B, K, present, D]`."""
    pasts: list[onnx.ValueInfoProto] = []
    presents: list[onnx.ValueInfoProto] = []
    for state in graph.states:
        _, _, heads, size = state.type.dims
        for part in ("k", "v"):
            for values, name, rows in ((pasts, past_name, past), (presents, present_name, present)):
                values.append(tensor(name(state, part), TensorType(state.type.dtype, (batch, heads, rows, size))))
    return pasts, presents


def tensor(name: str, type: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[type.dtype], list(type.dims))


def assemble(
    name: str,
    emitter: Emitter,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    given: Iterable[str] = (),
) -> onnx.ModelProto:
    """A model whose parameters, but those `given` as inputs, are constants outside of it, to be placed."""
    constants = [
        onnx.TensorProto(
            name=key,
            data_type=ELEMENT_TYPES[parameter.dtype],
            dims=parameter.dims,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, parameter in emitter.parameters.items()
        if key not in set(given)
    ]
    graph = helper.make_graph(emitter.nodes, name, inputs, outputs, [*emitter.constants.values(), *constants])
    return helper.make_model(
        graph,
        producer_name="ernie-rt",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        functions=emitter.function_protos(),
        ir_version=IR_VERSION,
    )


def portable_model(
    graph: Graph, dtype: DType, bindings: Mapping[str, int], accuracy_level: int, known_ids: int
) -> tuple[onnx.ModelProto, Emitter]:
    """The model in the form that onnxruntime-genai drives, and others by hand: a batch of token ids and a mask in, the
    logits of each sequence's last token out. Those of ids from `known_ids` on, which are no tokens, are NEVER."""
    emitter = Emitter(dtype, bindings, accuracy_level)
    e = emitter
    e("Cast", e("Reshape", INPUT_IDS, e.integers(-1)), to=onnx.TensorProto.INT32, out="ids")
    emit_mask(e, past_name(graph.states[0], "k"))
    emit(emitter, graph)
    logits, vocabulary = e.name(graph.output("logits")), graph.output("logits").type.dims[1]
    assert isinstance(vocabulary, int)
    if known_ids < vocabulary:
        ids = e("Range", *(e.constant(number, np.int64) for number in (0, vocabulary, 1)))
        tokens = e("Less", ids, e.constant(known_ids, np.int64))
        logits = e("Where", tokens, logits, e.constant(NEVER, np.float32))
    e("Unsqueeze", logits, e.integers(1), out=LOGITS)
    long = onnx.TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info(INPUT_IDS, long, ["batch_size", "sequence_length"]),
        helper.make_tensor_value_info(ATTENTION_MASK, long, ["batch_size", "total_sequence_length"]),
    ]
    last_logits = tensor(LOGITS, TensorType("float32", ("batch_size", 1, vocabulary)))
    pasts, presents = cache_values(graph, "batch_size", "past_sequence_length", "total_sequence_length")
    return assemble("ernie_rt", emitter, inputs + pasts, [last_logits, *presents]), emitter


def place(tensor: onnx.TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Say in which file, beside the model, the bytes of a constant lie."""
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(nbytes))):
        tensor.external_data.add(key=key, value=value)
