"""The graph of an exported folder, made of its config and the headers of its weights alone, by who writes it and by who
checks it; and the card that says what else lies there."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from ernie_rt import files
from ernie_rt.build import build as ready
from ernie_rt.contract import DType, Graph, Target, Weight
from ernie_rt.errors import ErnieRtError, IntegrityError
from ernie_rt.location import Located
from ernie_rt.untrusted_json import parse_json
from ernie_rt.weights.manifest import Manifest, padding
from ernie_rt.weights.safetensors import SafetensorsFile
from ernie_rt.weights.source import Array
from ernie_rt_onnx.backend import ACCURACY_LEVEL, OnnxBackend
from ernie_rt_onnx.emitter import Emitter
from ernie_rt_onnx.model import place, portable_model
from ernie_rt_onnx.runtime import MINIMUM_RUNTIME

MODEL: Final = "model.onnx"
TABLES: Final = "model.onnx.data"
ROWS_AT_ONCE: Final = 4096
"""Of a table."""
DTYPES: Final[tuple[DType, ...]] = ("float32", "float16", "bfloat16")

CARD: Final = "ernie_rt.card"
"""The key of the model's metadata under which a JSON object says what it was made of."""
CARD_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Table:
    """A table that no file of weights has, such as those of rope, in the dtype in which the graph reads it. It is made
    piece by piece: how long it is, a config says, who may say anything."""

    weight: Weight
    dtype: DType
    dims: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.dims) * np.dtype(self.dtype).itemsize

    def pieces(self) -> Iterator[Array]:
        """Its rows, some thousand at a time."""
        for first in range(0, self.dims[0], ROWS_AT_ONCE):
            rows = np.empty((min(ROWS_AT_ONCE, self.dims[0] - first), *self.dims[1:]), self.dtype)
            self.weight.storage.compute(self.weight.type, rows, (), first)
            yield rows


@dataclass(frozen=True, slots=True)
class Portable:
    """A lowered graph, the ONNX model that says the same, without a card, and the tables that belong into a file of
    their own, in their order."""

    graph: Graph
    model: onnx.ModelProto
    tables: tuple[Table, ...]

    @property
    def table_bytes(self) -> int:
        """The size of that file: each table begins where a tensor may."""
        return sum(table.nbytes + padding(table.nbytes) for table in self.tables)


def build(located: Located, dtype: DType, manifest: Manifest, folder: Path) -> Portable:
    """What belongs beside the weights in `folder`; of these, headers alone are read."""
    config = located.config
    graph = ready(config, OnnxBackend(), Target(("cpu",), dtype), manifest.storages).lowering.graph
    bindings = {"P": config.max_position_embeddings}
    model, emitter = portable_model(graph, dtype, bindings, ACCURACY_LEVEL, located.known_ids or config.vocab_size)
    return Portable(graph, model, _place_constants(model, emitter, folder, manifest))


def _place_constants(model: onnx.ModelProto, emitter: Emitter, folder: Path, manifest: Manifest) -> tuple[Table, ...]:
    """Point each constant to its bytes; the tables, which no file of weights has, come one after the other."""
    found: dict[str, tuple[str, int, int]] = {}
    for name in manifest.shards:
        file = SafetensorsFile(files.member(folder, name))
        found |= {key: (name, tensor.offset, tensor.nbytes) for key, tensor in file.tensors.items()}
        file.close()
    tables: list[Table] = []
    end = 0
    for constant in model.graph.initializer:
        if constant.data_location != onnx.TensorProto.EXTERNAL:
            continue
        parameter = emitter.parameters[constant.name]
        weight = parameter.weight
        if weight.storage.stored:
            place(constant, *found[f"{weight.name}.{parameter.part}"])
            continue
        table = Table(weight, parameter.dtype, parameter.dims)
        place(constant, TABLES, end, table.nbytes)
        tables.append(table)
        end += table.nbytes + padding(table.nbytes)
    return tuple(tables)


def facts(manifest: Manifest) -> dict[str, object]:
    """What a card says of the model, digests aside."""
    return {
        "format": CARD_FORMAT,
        "minimum_onnxruntime": MINIMUM_RUNTIME,
        "accuracy_level": ACCURACY_LEVEL,
        "errors": manifest.errors,
    }


def seal(model: onnx.ModelProto, manifest: Manifest, digests: Mapping[str, str]) -> None:
    """Give a model its card; `digests` are those of all other files of the folder."""
    card = {**facts(manifest), "graph": graph_digest(model), "files": dict(digests)}
    model.metadata_props.add(key=CARD, value=json.dumps(card))


def read_card(model: onnx.ModelProto) -> dict[str, Any]:
    """What the card of a model says; IntegrityError without one, or one that could not have been written."""
    where = f"{MODEL}, {CARD}"
    cards = [entry.value for entry in model.metadata_props if entry.key == CARD]
    if len(cards) != 1:
        raise IntegrityError("the model has no card, or several", where=where, found=len(cards), hint=AGAIN)
    try:
        card = parse_json(cards[0].encode(), where=where)
        digests = (card["graph"], *card["files"].values())
        known = card["format"] == CARD_FORMAT and isinstance(card["minimum_onnxruntime"], str)
        whole = known and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    except (ErnieRtError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError("the card cannot be read", where=where, found=str(error)[:200], hint=AGAIN) from None
    if not whole:
        raise IntegrityError("a card of another format", where=where, expected=f"format {CARD_FORMAT}", hint=AGAIN)
    assert isinstance(card, dict)
    return card


def graph_digest(model: onnx.ModelProto) -> str:
    """The sha256 of a model without its card, the same for all files that say the same."""
    return hashlib.sha256(bare(model).SerializeToString(deterministic=True)).hexdigest()


def bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model without its card."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    copy.metadata_props.extend(entry for entry in model.metadata_props if entry.key != CARD)
    return copy


AGAIN: Final = "Fetch the folder again, or export the model again"
"""What helps when a folder is not what was written."""
