"""How the parameters of a graph come to ONNX Runtime: in place from a mapped file, or from memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt.contract import Place, PlacedSource, WeightSource
from ernie_rt_onnx.emitter import Parameter


def read(parameter: Parameter, source: WeightSource, bindings: Mapping[str, int]) -> npt.NDArray[Any]:
    """A parameter's numbers, in memory of their own."""
    weight = parameter.weight
    array = np.empty(weight.parts[parameter.part].shape(bindings), parameter.dtype)
    source.fill(weight, parameter.part, array)
    return array.reshape(parameter.dims)


def places(parameters: Mapping[str, Parameter], source: WeightSource) -> tuple[Path | None, dict[str, Place]]:
    """The folder in whose files some of the parameters lie, and where; ONNX Runtime knows one folder."""
    if not isinstance(source, PlacedSource):
        return None, {}
    found: dict[str, Place] = {}
    known: dict[tuple[str, str], Place | None] = {}  # a tied embedding and head read the same part
    for name, parameter in parameters.items():
        if parameter.weight.parts[parameter.part].dtype != parameter.dtype:
            continue
        part = parameter.weight.name, parameter.part
        if part not in known:
            known[part] = source.place(parameter.weight, parameter.part)
        place = known[part]
        if place is not None:
            found[name] = replace(place, path=place.path.resolve())
    folders = {place.path.parent for place in found.values()}
    return (folders.pop(), found) if len(folders) == 1 else (None, {})
