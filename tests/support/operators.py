"""Operators of the library, one at a time, with the kernels that a test asks for; and weights for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from ernie_rt.storage.block_quantized import BlockQuantized
from ernie_rt_onnx.emitter import IR_VERSION, OPSETS
from ernie_rt_onnx.functions import DOMAIN
from ernie_rt_onnx.library import KERNELS, kernels, library_path

Array = np.ndarray[Any, Any]

ALL: Final = ("avx512", "avxvnni", "avx2", "neon", "plain")


def names() -> list[str]:
    """The kernels that this processor can run; none without the library."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ALL:
            patch.setenv(KERNELS, name)
            found += [name] * (kernels() is not None)
    return found


def register(options: ort.SessionOptions, name: str) -> None:
    """The library with these kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KERNELS, name)
        options.register_custom_ops_library(str(library_path()))


def ours_that_ran(profile: Path, model: onnx.ModelProto) -> set[str]:
    """The operators of domain `ernie_rt` that ran as nodes of their own, by what ONNX Runtime wrote down of a session.

    A function that no kernel replaces leaves none: the nodes of its body, of which one may be called the same, have
    names of their own.
    """
    named = {f"{node.name}_kernel_time": node.op_type for node in model.graph.node if node.domain == DOMAIN}
    return {named[event["name"]] for event in json.loads(profile.read_text()) if event["name"] in named}


def run_operator(name: str, op: str, inputs: Mapping[str, Array | None], outputs: int = 1, **attrs: Any) -> Any:
    """What an operator gives for its inputs, in their order, of which None is left out: an array, or a list of them.

    They are float16 where the first input is, else float32.
    """
    given = {each: np.ascontiguousarray(array) for each, array in inputs.items() if array is not None}
    places = [each if each in given else "" for each in inputs]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, places, made, domain=DOMAIN, **attrs)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    half = next(iter(given.values())).dtype == np.float16
    dtype = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    untold = [helper.make_tensor_value_info(name, dtype, None) for name in made]
    model = helper.make_model(
        helper.make_graph([node], "one", values, untold),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        ir_version=IR_VERSION,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    register(options, name)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, given)
    return found[0] if outputs == 1 else found


def in_tiles(values: Array, storage: BlockQuantized) -> tuple[Array, Array, Array]:
    """Codes and scales of a weight `[R, (2,) K]` in tiles, and the numbers that they stand for."""
    raw, _, _ = storage.quantize(values.astype(np.float32), search=False, where="a test")
    packed = storage.laid_out("tiled").pack(raw)
    return packed["codes"], packed["scales"], storage.dequantize(raw)


def experts_in_tiles(values: Array, storage: BlockQuantized) -> tuple[Array, Array, Array]:
    """The same of `[E, R, (2,) K]`, each expert by itself."""
    codes, scales, numbers = zip(*(in_tiles(expert, storage) for expert in values), strict=True)
    return np.stack(codes), np.stack(scales), np.stack(numbers)
