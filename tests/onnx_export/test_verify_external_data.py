"""Tensors of an exported graph lie in the files of weights that the card names, at places that fit them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
import onnx
from onnx import AttributeProto, TensorProto

from ernie_rt.errors import IntegrityError
from ernie_rt.export import verify
from ernie_rt_onnx.portable import MODEL
from ernie_rt_onnx.static import walk
from support.exports import WEIGHTS, Edit, forge, graph, node


def external(name: str = "hidden", location: str = WEIGHTS, offset: object = 4096, length: object = 64) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=external(), indices=external("indices"), dims=[64])


INITIALIZERS = "only initializers of the graph may lie in other files"
SPARSE = "a sparse tensor"
HIDDEN: dict[str, tuple[Edit, str]] = {
    "a sparse initializer": (lambda m: m.graph.sparse_initializer.append(sparse()), SPARSE),
    "a sparse attribute": (lambda m: m.graph.node.append(node(sparse_tensor=sparse())), SPARSE),
    "sparse attributes": (lambda m: m.graph.node.append(node(sparse_tensors=[sparse()])), SPARSE),
    "an attribute": (lambda m: m.graph.node.append(node(t=external())), INITIALIZERS),
    "attributes": (lambda m: m.graph.node.append(node(tensors=[external()])), INITIALIZERS),
    "a graph inside": (lambda m: m.graph.node.append(node(g=graph(initializer=[external()]))), INITIALIZERS),
    "two graphs down": (
        lambda m: m.graph.node.append(node(graphs=[graph(), graph(node(g=graph(node(t=external()))))])),
        INITIALIZERS,
    ),
    "a function": (lambda m: m.functions[0].node.append(node(t=external())), INITIALIZERS),
    "a sparse tensor in a function": (lambda m: m.functions[0].node.append(node(sparse_tensor=sparse())), SPARSE),
    "the default of a function's attribute": (
        lambda m: m.functions[0].attribute_proto.append(AttributeProto(name="a", t=external())),
        INITIALIZERS,
    ),
    "training": (
        lambda m: m.training_info.append(onnx.TrainingInfoProto(algorithm=graph(initializer=[external()]))),
        INITIALIZERS,
    ),
    "a place that is not said to be one": (
        lambda m: m.graph.node.append(node(t=TensorProto(external_data=external().external_data))),
        INITIALIZERS,
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("location", [WEIGHTS, "../secret"])
def test_external_data_has_one_place(name: str, location: str, folder: Path) -> None:
    edit, message = HIDDEN[name]

    def hide(model: onnx.ModelProto) -> None:
        edit(model)
        for _, message in walk(model):
            if isinstance(message, TensorProto) and message.name in ("hidden", "indices"):
                message.external_data[0].value = location

    forge(folder, hide, version="0.0.9")
    with pytest.raises(IntegrityError, match=message):
        verify(folder)


def at(**said: object) -> Edit:
    """Say another place of the first tensor that lies in a file of weights."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data and t.external_data[0].value == WEIGHTS)
        for entry in tensor.external_data:
            entry.value = str(said.get(entry.key, entry.value))

    return edit


def change(edit: Callable[[TensorProto], Any]) -> Edit:
    return lambda model: edit(next(t for t in model.graph.initializer if t.external_data))


PLACES: dict[str, tuple[Edit, str]] = {
    **{
        repr(location): (at(location=location), "external data: a file name that could lead out of its folder")
        for location in (
            "../secret", "/etc/passwd", "sub/x", "..", ".", "", "a\0b", "\\\\host\\x", "*/_ORT_MEM_ADDR_/*", "x" * 300,
        )
    },
    "no such file": (at(location="nowhere"), "external data: there is no such file"),
    "beyond the end": (at(offset=10**17), "is shorter than the tensor's place"),
    "wrapping around": (at(offset=2**63 - 8), "an impossible place"),
    **{
        f"offset {text!r}": (at(offset=text), "an impossible place")
        for text in ("-1", "", "4096.0", "1e3", " 4096", "0x10", "٣", "9" * 40)
    },
    "another length": (at(length=64), "another length than its dims and dtype say"),
    "other dims": (change(lambda t: t.dims.append(2)), "another length than its dims and dtype say"),
    "negative dims": (change(lambda t: t.dims.extend([-1, -1])), "another length than its dims and dtype say"),
    "huge dims": (change(lambda t: t.dims.extend([2**62, 2**62])), "another length than its dims and dtype say"),
    "another dtype": (
        change(lambda t: setattr(t, "data_type", TensorProto.STRING)), "another length than its dims and dtype say",
    ),
    "a place twice": (change(lambda t: t.external_data.add(key="offset", value="0")), "an impossible place"),
    "a base of its own": (change(lambda t: t.external_data.add(key="basepath", value="/")), "an impossible place"),
    "not said to be one": (change(lambda t: t.ClearField("data_location")), "an impossible place"),
    "bytes of its own too": (change(lambda t: setattr(t, "raw_data", b"x")), "another length"),
    "a file that the card does not name": (at(location=MODEL, offset=0), "the card has no digest of a file of weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str, folder: Path) -> None:
    edit, message = PLACES[name]
    forge(folder, edit, version="0.0.9")
    with pytest.raises(IntegrityError, match=message):
        verify(folder)
