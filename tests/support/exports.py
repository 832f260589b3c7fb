"""Exported folders, read and changed as somebody does who knows the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import onnx

from ernie_rt.weights.manifest import MANIFEST, read_manifest
from ernie_rt_onnx.portable import CARD, MODEL, TABLES, seal

WEIGHTS: Final = "model-00001-of-00004.safetensors"
Edit = Callable[[onnx.ModelProto], Any]


def read(folder: Path) -> onnx.ModelProto:
    return onnx.load(str(folder / MODEL), load_external_data=False)


def card(model: onnx.ModelProto) -> str:
    return next(entry.value for entry in model.metadata_props if entry.key == CARD)


def forge(folder: Path, edit: Edit = lambda model: None, version: str | None = None) -> None:
    """Edit a model as somebody does who knows what the card and the manifest say: all digests are right."""
    model = read(folder)
    edit(model)
    manifest = json.loads((folder / MANIFEST).read_text())
    if version is not None:
        manifest["origin"]["version"] = version
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in (MODEL, "README.md") and path.is_file()
    }
    apart = {MANIFEST, TABLES, *manifest["shards"]}
    manifest["beside"] = {name: digest for name, digest in digests.items() if name not in apart}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    digests[MANIFEST] = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    del model.metadata_props[:]
    seal(model, read_manifest(folder / MANIFEST), digests)
    (folder / MODEL).write_bytes(model.SerializeToString())


def node(**attributes: Any) -> onnx.NodeProto:
    return onnx.NodeProto(
        op_type="Constant",
        output=["x"],
        attribute=[onnx.AttributeProto(name=k, **{k: v}) for k, v in attributes.items()],
    )


def graph(*nodes: onnx.NodeProto, **fields: Any) -> onnx.GraphProto:
    return onnx.GraphProto(name="inner", node=nodes, **fields)
