"""How the parameters of a graph come to ONNX Runtime: in place from a mapped file, or from memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ernie_rt.backend import DType, Place, PlacedSource, RopeTable, WeightSource
from ernie_rt_onnx.emitter import Parameter

NUMPY: Mapping[DType, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "uint8": np.uint8,
    "int32": np.int32,
    "bool": np.bool_,
}


def read(parameter: Parameter, source: WeightSource, bindings: Mapping[str, int]) -> npt.NDArray[Any]:
    """A parameter's numbers, in memory of their own."""
    weight = parameter.weight
    stored = weight.storage.parts(weight.type)[parameter.part]
    array = np.empty(stored.shape(bindings), NUMPY[parameter.dtype])
    source.fill(weight, parameter.part, array)
    return array.reshape(parameter.dims)


def places(parameters: Mapping[str, Parameter], source: WeightSource) -> tuple[Path | None, dict[str, Place]]:
    """The folder in whose files some of the parameters lie, and where; ONNX Runtime knows one folder."""
    if not isinstance(source, PlacedSource):
        return None, {}
    found: dict[str, Place] = {}
    known: dict[tuple[str, str], Place | None] = {}  # a tied embedding and head read the same part
    for name, parameter in parameters.items():
        stored = parameter.weight.storage.parts(parameter.weight.type).get(parameter.part)
        if stored is None or stored.dtype != parameter.dtype or isinstance(parameter.weight.storage, RopeTable):
            continue
        part = parameter.weight.name, parameter.part
        if part not in known:
            known[part] = source.place(parameter.weight, parameter.part)
        place = known[part]
        if place is not None:
            found[name] = replace(place, path=place.path.resolve())
    folders = {place.path.parent for place in found.values()}
    return (folders.pop(), found) if len(folders) == 1 else (None, {})
