"""How the parameters of a graph come to ONNX Runtime: in place from a mapped file, or from memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ernie_rt import files
from ernie_rt.contract import Place, PlacedSource, WeightSource
from ernie_rt.errors import FileFormatError
from ernie_rt_onnx.emitter import Parameter


def read(parameter: Parameter, source: WeightSource, bindings: Mapping[str, int]) -> npt.NDArray[Any]:
    """A parameter's numbers, in memory of their own."""
    weight = parameter.weight
    array = np.empty(weight.parts[parameter.part].shape(bindings), parameter.dtype)
    source.fill(weight, parameter.part, array)
    return array.reshape(parameter.dims)


def places(parameters: Mapping[str, Parameter], source: WeightSource) -> dict[str, Place]:
    """Where those of the parameters lie that are in a file just as the graph reads them."""
    if not isinstance(source, PlacedSource):
        return {}
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
    return found


def only_folder(places: Iterable[Place]) -> Path | None:
    """The folder of all of them, since ONNX Runtime knows one; None where there are several, or none."""
    folders = {place.path.parent for place in places}
    return folders.pop() if len(folders) == 1 else None


def views(parameters: Mapping[str, Parameter], places: Mapping[str, Place]) -> dict[str, npt.NDArray[Any]]:
    """Parameters as they lie in their files, each of which is mapped once, whole, and for as long as a view lives.

    ONNX Runtime would map each tensor by itself, in small pages: a decoded token takes up to 1.4 times as long.
    """
    mapped = {path: files.map_readonly(path)[0] for path in {place.path for place in places.values()}}
    found = {}
    for name, place in places.items():
        dims, dtype = parameters[name].dims, np.dtype(parameters[name].dtype)
        if place.offset + place.nbytes > len(mapped[place.path]):
            raise FileFormatError(
                "the file has become shorter since it was opened",
                where=str(place.path),
                expected=f"{place.offset + place.nbytes} bytes or more",
                found=len(mapped[place.path]),
                hint="Load the model again once nobody writes to it",
            )
        flat = np.frombuffer(mapped[place.path], dtype, place.nbytes // dtype.itemsize, place.offset)
        found[name] = flat.reshape(dims)
    return found
